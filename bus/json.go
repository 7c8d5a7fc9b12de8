package bus

import (
	"encoding/base64"
	"errors"
	"mime"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/tidwall/gjson"
)

// The JSON form of an event: the CloudEvents JSON event format 1.0.2.
//
// The SDK's decoder is not used here, although it is the reference in the tests:
// it lets the last of two members win, truncates fractions and numbers that do not
// fit, refuses data with numbers beyond a float64 (1e400), takes media types with
// +json for text, does not say which attribute was wrong, and its encoder writes
// whatever bytes it is given as "data".
// jsonread.go goes through the document once and finds each member with its place,
// so the data stays the bytes that came.

// AppendJSON appends the event in structured form. The data is "data" as it came
// when it is JSON, "data" as a string when it is text in UTF-8, and "data_base64"
// otherwise. JSON data is embedded with the line breaks it has.
func (e Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range e.attrs {
		a := &e.attrs[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, a.Name...)
		dst = append(dst, '"', ':')
		if a.Kind == String {
			dst = gjson.AppendJSONString(dst, a.Value)
		} else {
			dst = append(dst, a.Value...)
		}
	}
	return append(e.appendData(dst), '}')
}

func (e Event) appendData(dst []byte) []byte {
	switch {
	case len(e.data) == 0:
		return dst
	case !e.isText():
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.data)
		return append(dst, '"')
	}
	dst = append(dst, `,"data":`...)
	if e.json {
		return append(dst, e.data...)
	}
	return gjson.AppendJSONString(dst, view(e.data))
}

// isText tells whether "data" carries the data without loss: it is JSON or declared
// to be text, and in UTF-8.
func (e Event) isText() bool {
	if !utf8.Valid(e.data) {
		return false
	}
	if e.json {
		return true
	}
	ct, ok := e.Lookup("datacontenttype")
	if !ok {
		return false
	}
	mt, params, err := mime.ParseMediaType(ct)
	if err != nil {
		return false
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && !strings.EqualFold(cs, "us-ascii") {
		return false
	}
	switch mt {
	case "application/xml", "application/yaml", "application/x-ndjson", "application/javascript",
		"application/x-www-form-urlencoded", "application/sql", "application/graphql":
		return true
	}
	return strings.HasPrefix(mt, "text/") || strings.HasSuffix(mt, "+xml") || strings.HasSuffix(mt, "+yaml")
}

// MarshalJSON is AppendJSON for encoding/json, which compacts the data.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.IsZero() {
		return nil, errors.New("bus: the zero Event has no JSON form")
	}
	return e.AppendJSON(make([]byte, 0, e.Size()+64)), nil
}

// view is b as a string, without a copy, which may be a megabyte. Nothing that
// outlives the parse keeps it: own copies the attributes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
