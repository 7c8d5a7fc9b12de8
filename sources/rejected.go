package sources

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sluice/bus"
)

// TypeRejected is the type of the event around Rejected input.
const TypeRejected = "sluice.source.rejected"

// maxRejected is how many bytes of rejected input are kept.
const maxRejected = 2 << 20

// Event is the input wrapped for the dead letters: its data is the input byte for
// byte, at most 2 MiB of it; more is cut, and the attribute originalsize says so.
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
