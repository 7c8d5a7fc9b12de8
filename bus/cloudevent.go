package bus

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// CloudEvent is the event in the form of the CloudEvents SDK, for code that is
// written against that. The data is shared: read only. The SDK prints a time in
// UTC and may spell a URI differently (an upper-case scheme becomes lower-case).
func (e Event) CloudEvent() event.Event {
	// The fields and not the SDK's setters, which trim spaces off id and type.
	ctx := &event.EventContextV1{}
	for i := range e.attrs {
		a := &e.attrs[i]
		switch a.Name {
		case "specversion":
		case "id":
			ctx.ID = a.Value
		case "type":
			ctx.Type = a.Value
		case "source":
			ctx.Source = types.URIRef{URL: keepText(a.Value)}
		case "subject":
			ctx.Subject = &a.Value
		case "time":
			ctx.Time = &types.Timestamp{Time: e.Time()}
		case "datacontenttype":
			ctx.DataContentType = &a.Value
		case "dataschema":
			ctx.DataSchema = &types.URI{URL: keepText(a.Value)}
		default:
			if ctx.Extensions == nil {
				ctx.Extensions = make(map[string]any)
			}
			ctx.Extensions[a.Name] = a.native()
		}
	}
	// The SDK writes data that is not marked as binary as it is, and takes data
	// without a type for JSON.
	return event.Event{Context: ctx, DataEncoded: e.data, DataBase64: len(e.data) > 0 && !e.isText()}
}

// keepText parses text, which was checked before, into a URL that prints as text
// again. "#", for one, would print as nothing.
func keepText(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		return url.URL{Opaque: text}
	}
	if u.String() == text {
		return *u
	}
	if u.Scheme == "" {
		return url.URL{Opaque: text}
	}
	return url.URL{Scheme: u.Scheme, Opaque: text[len(u.Scheme)+1:]}
}

// native is the value of an extension as the SDK holds it.
func (a *Attr) native() any {
	switch a.Kind {
	case Integer:
		n, _ := strconv.ParseInt(a.Value, 10, 32) // checked when the event was made
		return int32(n)
	case Boolean:
		return a.Value == "true"
	}
	return a.Value
}

// FromCloudEvent takes an event over from the CloudEvents SDK and keeps its data.
// The SDK's own faults and everything that NewEvent checks are *AttributeErrors;
// events of version 0.3 are refused.
func FromCloudEvent(in event.Event) (Event, error) {
	// Not in.Validate: it tells less than NewEvent, and counts a space as nothing.
	// But a setter that failed left its error there and nothing else.
	if len(in.FieldErrors) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(in.FieldErrors)))
		return Event{}, &AttributeError{strings.TrimPrefix(first, "extension:"), in.FieldErrors[first].Error()}
	}
	if in.Context == nil {
		return Event{}, &AttributeError{"specversion", "missing: the event was not made by event.New"}
	}
	ctx, ok := in.Context.(*event.EventContextV1)
	if !ok {
		return Event{}, &AttributeError{"specversion", quote(in.SpecVersion()) + " is not supported: send " + quote(SpecVersion)}
	}
	attrs := make([]Attr, 0, 8+len(ctx.Extensions)+1)
	set := func(name, value string) { attrs = append(attrs, Attr{Name: name, Value: value}) }
	set("specversion", SpecVersion)
	set("id", ctx.ID)
	set("source", ctx.Source.String())
	set("type", ctx.Type)
	if ctx.Subject != nil {
		set("subject", *ctx.Subject)
	}
	if ctx.Time != nil && !ctx.Time.IsZero() {
		set("time", ctx.Time.UTC().Format(time.RFC3339Nano))
	}
	if ctx.DataContentType != nil {
		set("datacontenttype", *ctx.DataContentType)
	}
	if ctx.DataSchema != nil {
		set("dataschema", ctx.DataSchema.String())
	}
	for name, v := range ctx.Extensions {
		a, err := extension(name, v)
		if err != nil {
			return Event{}, err
		}
		attrs = append(attrs, a)
	}
	return NewEvent(attrs, in.Data())
}

// extension is an extension of the SDK as an attribute.
func extension(name string, v any) (Attr, error) {
	v, err := types.Validate(v)
	if err != nil {
		return Attr{}, &AttributeError{name, err.Error()}
	}
	text, err := types.Format(v)
	if err != nil {
		return Attr{}, &AttributeError{name, err.Error()}
	}
	a := Attr{Name: name, Value: text}
	switch v.(type) {
	case int32:
		a.Kind = Integer
	case bool:
		a.Kind = Boolean
	}
	return a, nil
}
