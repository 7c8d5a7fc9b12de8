package sinks

import (
	"net/http"
	"net/url"
	"strings"
)

// Payload is what the transform of a rule made of an event, to be sent in its
// place. The http sink sends the body with the event's attributes as ce-* headers,
// whatever its mode: it is the data of the same CloudEvent, but for a dataschema,
// which it does not follow. It is never part of a batch. A queue gives it out in the
// same manner. A sink that cannot send a path, a query or headers leaves those out.
type Payload struct {
	Body        []byte // nil: the event's own data
	ContentType string // of Body
	Path        string // appended to that of the URL; escaped, begins with /, or ""
	Query       map[string]string
	Header      map[string]string // in US-ASCII without control characters
}

// CheckHeader says why a header may not be set by a transform, or "".
func CheckHeader(name string) string {
	switch {
	case strings.EqualFold(name, "Host"), strings.EqualFold(name, "Authorization"):
		return "is the sink's own: an event must not choose it"
	}
	return headerFault(name, "")
}

// apply makes a request of what it has in common with the others and a payload; h
// is its header, which the attributes of the event are already in. It returns the
// body, which is data unless the payload has one.
func (p *Payload) apply(req *http.Request, h http.Header, data []byte) []byte {
	if p.Body != nil {
		data = p.Body
		delete(h, "Ce-Dataschema")
		h["Content-Type"] = []string{p.ContentType}
	}
	for name, text := range p.Header {
		h.Set(name, text)
	}
	if p.Path == "" && len(p.Query) == 0 {
		return data
	}
	target := *req.URL // the sink's own stays as it is
	if p.Path != "" {
		escaped := strings.TrimSuffix(target.EscapedPath(), "/") + p.Path
		if plain, err := url.PathUnescape(escaped); err == nil {
			target.Path, target.RawPath = plain, escaped
		}
	}
	if len(p.Query) > 0 {
		query := target.Query()
		for name, text := range p.Query {
			query.Set(name, text)
		}
		target.RawQuery = query.Encode()
	}
	req.URL = &target
	return data
}
