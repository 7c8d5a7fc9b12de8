package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"time"
)

// TransformSpec is a transform as it is written: what a rule sends in place of
// the event. The semantics are those of EventBridge's input transformer:
//
//   - Paths name variables, Template is the payload with <name> where one goes.
//   - A template that begins with { or [, or whose content type is JSON, is a JSON
//     template. Outside of quotes a variable becomes a JSON value as it stands in
//     the event, with quotes if it is a string. Inside of quotes its text is put
//     in, escaped; an object or a list loses its own quotes there.
//   - Any other template is a text. Its lines may each be in quotes, as they have
//     to be there, or not; without quotes an object keeps its own.
//   - What a path does not find is an empty text, and null outside of quotes in a
//     JSON template. AWS only says that it does not appear in the output.
//   - \< is a < that begins no variable.
//
// The built-in variables are <sluice.rule>, <sluice.time> (when the event was
// accepted), <sluice.event> (all of it, as JSON), <sluice.attributes> (the event
// without its data) and <sluice.data>.
type TransformSpec struct {
	Input       json.RawMessage   `yaml:"input" json:"input,omitempty" doc:"A constant payload that is sent in place of the event."`
	Paths       map[string]string `yaml:"paths" json:"paths,omitempty" doc:"Variables by name: where in the event each is, as $.data.key or as a gjson path."`
	Template    string            `yaml:"template" json:"template,omitempty" doc:"The payload with <name> for variables: a JSON template or a text. Built in are <sluice.rule>, <sluice.time>, <sluice.event>, <sluice.attributes> and <sluice.data>."`
	ContentType string            `yaml:"content_type" json:"content_type,omitempty" doc:"The media type of the payload; application/json for JSON and text/plain for a text when left out."`
	HTTP        TransformHTTP     `yaml:"http" json:"http,omitzero" doc:"What of an HTTP request follows from the event."`
}

// TransformHTTP is what a transform does to the request of an HTTP sink. Each text
// is a template. A query parameter or a header of which no variable was found is
// left out; a path without one of its variables is an error.
type TransformHTTP struct {
	Path    string            `yaml:"path" json:"path,omitempty" doc:"Appended to the path of the sink's URL, with <name> or {name} for variables."`
	Query   map[string]string `yaml:"query" json:"query,omitempty" doc:"Parameters of the query, with <name> for variables."`
	Headers map[string]string `yaml:"headers" json:"headers,omitempty" doc:"Headers, with <name> for variables."`
}

// The limits of a transform. AWS has 100 variables and 8 KiB of template.
const (
	maxTransformPaths    = 100
	maxTransformTemplate = 64 << 10
	maxTransformed       = 16 << 20
)

// TransformError says what is wrong with one part of a transform.
type TransformError struct {
	Field  string // as in the YAML: template, paths.id, http.query.k; "" for the whole
	Offset int    // byte offset into the text of the field
	Msg    string
}

func (e *TransformError) Error() string {
	return fmt.Sprintf("%s: at byte %d: %s", e.Field, e.Offset, e.Msg)
}

// TransformErrors is everything that is wrong with a transform.
type TransformErrors []*TransformError

func (e TransformErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Transform is a transform that is ready to use. It is immutable and may be shared.
type Transform struct {
	paths       map[string]*variable
	body        template // nil with constant or without a payload of its own
	kind        templateKind
	constant    []byte
	contentType string
	path        template
	query       map[string]template
	headers     map[string]template
}

// TransformInput is what a transform is applied to.
type TransformInput struct {
	Event    EventDocument
	Rule     string
	Accepted time.Time
}

// EventDocument is an event that has a JSON form too.
type EventDocument interface {
	EventView
	// AppendJSON appends the CloudEvent in structured form.
	AppendJSON(dst []byte) []byte
}

// Transformed is what a transform made of an event.
type Transformed struct {
	Body        []byte // nil: the event's own data
	ContentType string // of Body
	Path        string // escaped, begins with /; or ""
	Query       map[string]string
	Header      map[string]string
}

// ParseTransform checks a transform and makes it ready. An error is always a
// TransformErrors: what passes here can only fail on what an event holds.
func ParseTransform(spec TransformSpec) (*Transform, error) {
	p := transformParser{t: &Transform{paths: map[string]*variable{}}}
	p.payload(spec)
	p.variables(spec.Paths)
	p.templates(spec)
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.t, nil
}

type transformParser struct {
	t    *Transform
	errs TransformErrors
}

func (p *transformParser) add(field string, at int, format string, args ...any) {
	p.errs = append(p.errs, &TransformError{field, at, fmt.Sprintf(format, args...)})
}

// payload checks what the transform consists of, and finds its kind.
func (p *transformParser) payload(spec TransformSpec) {
	h := spec.HTTP
	switch {
	case spec.Input != nil && spec.Template != "":
		p.add("input", 0, "stands beside template: a payload is either constant or made of a template")
	case spec.Input != nil && !json.Valid(spec.Input):
		p.add("input", 0, "is not valid JSON")
	case spec.Input == nil && spec.Template == "" && h.Path == "" && len(h.Query)+len(h.Headers) == 0:
		p.add("", 0, "changes nothing: write input, template or http")
	case spec.Input == nil && spec.Template == "" && spec.ContentType != "":
		p.add("content_type", 0, "is for input or template: without one of them the event's own data is sent")
	case len(spec.Template) > maxTransformTemplate:
		p.add("template", 0, "has %d bytes: %d are the most", len(spec.Template), maxTransformTemplate)
	}
	if ct := spec.ContentType; ct != "" {
		if _, _, err := mime.ParseMediaType(ct); err != nil || strings.ContainsFunc(ct, unsafeInHeader) {
			p.add("content_type", 0, "is not a media type such as application/json")
		}
	}
	p.t.kind = kindOf(spec)
	switch p.t.contentType = spec.ContentType; {
	case p.t.contentType != "" || spec.Input == nil && spec.Template == "":
	case p.t.kind == jsonTemplate:
		p.t.contentType = "application/json"
	default:
		p.t.contentType = "text/plain; charset=utf-8"
	}
	if p.t.constant = spec.Input; spec.Input != nil && p.t.kind != jsonTemplate {
		var text string
		if json.Unmarshal(spec.Input, &text) == nil {
			p.t.constant = append([]byte{}, text...)
		}
	}
}

// kindOf is what a payload is, from its content type or else from how it begins.
func kindOf(spec TransformSpec) templateKind {
	text := strings.TrimSpace(spec.Template)
	switch {
	case spec.ContentType != "" && isJSONType(spec.ContentType),
		spec.ContentType == "" && (spec.Input != nil || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")):
		return jsonTemplate
	case strings.HasPrefix(text, `"`):
		return quotedTemplate
	}
	return textTemplate
}

// isJSONType tells whether a media type is JSON.
func isJSONType(mediaType string) bool {
	mt, _, _ := strings.Cut(strings.ToLower(mediaType), ";")
	mt = strings.TrimSpace(mt)
	return strings.HasSuffix(mt, "/json") || strings.HasSuffix(mt, "+json")
}

// isVariableName is AWS's rule: letters, digits, _ and -. A name with a dot is one
// of the built-in ones.
func isVariableName(s string) bool {
	return s != "" && len(s) <= 256 && strings.Trim(s, nameLetters) == ""
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

func (p *transformParser) variables(paths map[string]string) {
	if len(paths) > maxTransformPaths {
		p.add("paths", 0, "has %d variables: %d are the most", len(paths), maxTransformPaths)
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		field := "paths." + name
		if !isVariableName(name) {
			p.add(field, 0, "is not the name of a variable: write letters, digits, _ and -")
			continue
		}
		v, err := parsePath(name, paths[name])
		if err != nil {
			p.add(field, err.Offset, "%s", err.Msg)
			v = &variable{name: name} // so that its uses are no faults too
		}
		p.t.paths[name] = v
	}
}

func (p *transformParser) templates(spec TransformSpec) {
	if spec.Template != "" {
		p.t.body = p.template("template", strings.TrimSpace(spec.Template), p.t.kind, leadingSpace(spec.Template))
	}
	if spec.HTTP.Path != "" {
		p.t.path = p.template("http.path", spec.HTTP.Path, pathTemplate, 0)
		p.checkPath(spec.HTTP.Path)
	}
	p.t.query = p.table("http.query", spec.HTTP.Query, nil)
	p.t.headers = p.table("http.headers", spec.HTTP.Headers, p.checkHeader)
}

func leadingSpace(s string) int { return len(s) - len(strings.TrimLeft(s, " \t\r\n")) }

func (p *transformParser) table(field string, texts map[string]string, check func(field, name, text string)) map[string]template {
	if len(texts) == 0 {
		return nil
	}
	table := make(map[string]template, len(texts))
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		at := field + "." + name
		table[name] = p.template(at, texts[name], textTemplate, 0)
		if check != nil {
			check(at, name, texts[name])
		}
	}
	return table
}

// Requests tells whether the transform has parts that only an HTTP request has.
func (t *Transform) Requests() bool { return t.path != nil || t.query != nil || t.headers != nil }

// Apply makes of an event what is sent in its place. An error is about what the
// event holds: trying again with the same event and transform is in vain.
func (t *Transform) Apply(in TransformInput) (out Transformed, err error) {
	defer func() {
		if p := recover(); p != nil { // in the library that evaluates gjson paths
			out, err = Transformed{}, fmt.Errorf("transform: %v", p)
		}
	}()
	s := &scope{in: in}
	out.ContentType = t.contentType
	switch {
	case t.constant != nil:
		out.Body = t.constant
	case t.body != nil:
		if out.Body, err = t.body.render(s, t.kind); err != nil {
			return Transformed{}, err
		}
	}
	if out.Path, err = t.renderPath(s); err != nil {
		return Transformed{}, err
	}
	if out.Query, err = renderTable(s, t.query, nil); err == nil {
		out.Header, err = renderTable(s, t.headers, safeHeader)
	}
	if err != nil {
		return Transformed{}, err
	}
	return out, nil
}

var errTooLarge = errors.New("the payload grows beyond 16 MiB")
