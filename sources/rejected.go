package sources

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sluice/bus"
)

// TypeRejected is the type of the event around Rejected input.
const TypeRejected = "sluice.source.rejected"

// How many bytes of rejected input are kept: of the data, of the key, and of the headers
// as originalheaders has them.
const (
	maxRejected        = 2 << 20
	maxRejectedKey     = 4 << 10
	maxRejectedHeaders = 32 << 10
)

// Event is the input wrapped for the dead letters: its data is the input byte for
// byte, at most 2 MiB of it; more is cut, and the attribute originalsize says so. The key
// is originalkey, or originalkeybase64 where it is no text; the headers are
// originalheaders, a JSON list of {"name", "value" or "base64"}, of which {"left_out"}
// counts what was too much.
func (r Rejected) Event(source string) bus.Event {
	contentType := r.ContentType
	if contentType == "" || printable(contentType) != contentType {
		contentType = "application/octet-stream"
	}
	id := printable(r.ID)
	if id == "" {
		sum := sha256.Sum256(r.Data)
		id = hex.EncodeToString(sum[:16])
	}
	attrs := []bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "/sources/" + source}, {Name: "type", Value: TypeRejected},
	}
	if where := printable(r.Where); where != "" {
		attrs = append(attrs, bus.Attr{Name: "subject", Value: where})
	}
	data := r.Data
	if len(data) > maxRejected {
		attrs = append(attrs, bus.Attr{Name: "originalsize", Value: strconv.Itoa(len(data))})
		data = data[:maxRejected]
	}
	attrs = append(append(attrs, r.keyAttrs()...), r.headerAttrs()...)
	as := func(contentType string) (bus.Event, error) { // NewEvent keeps the attributes it is given
		return bus.NewEvent(append(slices.Clone(attrs), bus.Attr{Name: "datacontenttype", Value: contentType}), data)
	}
	e, err := as(contentType)
	if err != nil { // data that claims a form it does not have, such as broken JSON
		if e, err = as("application/octet-stream"); err != nil {
			panic("sources: a wrapper that is no event: " + err.Error()) // printable and complete
		}
	}
	return bus.Stamp(e, time.Now())
}

// keyAttrs is the key as attributes.
func (r Rejected) keyAttrs() (attrs []bus.Attr) {
	key := r.Key
	if len(key) == 0 {
		return nil
	}
	if len(key) > maxRejectedKey {
		attrs = append(attrs, bus.Attr{Name: "originalkeysize", Value: strconv.Itoa(len(key))})
		key = key[:maxRejectedKey]
	}
	if text := string(key); isText(text) {
		return append(attrs, bus.Attr{Name: "originalkey", Value: text})
	}
	return append(attrs, bus.Attr{Name: "originalkeybase64", Value: base64.StdEncoding.EncodeToString(key)})
}

// keptHeader is a header in originalheaders.
type keptHeader struct {
	Name   string  `json:"name"`
	Value  *string `json:"value,omitempty"`
	Base64 []byte  `json:"base64,omitempty"`
}

// headerAttrs is the headers as an attribute.
func (r Rejected) headerAttrs() []bus.Attr {
	if len(r.Headers) == 0 {
		return nil
	}
	var list []byte
	left := 0
	add := func(item keptHeader) bool {
		text, err := json.Marshal(item)
		fits := err == nil && len(list)+len(text) < maxRejectedHeaders
		if fits {
			list = append(append(list, ','), text...)
		}
		return fits
	}
	for _, h := range r.Headers {
		item := keptHeader{Name: printable(h.Name)}
		if text := string(h.Value); text == "" || isText(text) {
			item.Value = &text
		} else {
			item.Base64 = h.Value
		}
		if !add(item) {
			left++
		}
	}
	if left > 0 {
		list = append(list, fmt.Sprintf(`,{"left_out":%d}`, left)...)
	}
	return []bus.Attr{{Name: "originalheaders", Value: "[" + string(list[1:]) + "]"}}
}

// printable is text without what no attribute may hold, and at most 1024 bytes.
func printable(text string) string {
	if len(text) > 1024 {
		text = text[:1024]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
