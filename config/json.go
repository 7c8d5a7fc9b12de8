package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"sort"

	"go.yaml.in/yaml/v3"

	"sluice/rules"
)

// document is a part of the YAML tree as JSON, with the place that each piece of
// it comes from.
type document struct {
	text  []byte
	marks []mark // by offset
}

type mark struct {
	offset int
	pos    Pos
}

// posOf is where the byte at offset was written.
func (doc document) posOf(offset int) Pos {
	i := sort.Search(len(doc.marks), func(i int) bool { return doc.marks[i].offset > offset })
	return doc.marks[max(0, i-1)].pos
}

// toJSON writes n as JSON. Numbers keep the text they were written with: 1.10 and
// 12345678901234567890 mean what they say. It reports what JSON does not have,
// and false when there was any.
func (d *decoder) toJSON(n *yaml.Node, path string) (document, bool) {
	w := jsonWriter{d: d, ok: true}
	w.value(n, path)
	return document{w.out.Bytes(), w.marks}, w.ok
}

type jsonWriter struct {
	d     *decoder
	out   bytes.Buffer
	marks []mark
	ok    bool
}

func (w *jsonWriter) mark(n *yaml.Node) {
	w.marks = append(w.marks, mark{w.out.Len(), w.d.pos(n)})
}

func (w *jsonWriter) value(n *yaml.Node, path string) {
	n = resolve(n)
	w.mark(n)
	switch n.Kind {
	case yaml.MappingNode:
		w.out.WriteByte('{')
		for i, p := range pairs(n) {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.key(p.key, path)
			w.out.WriteByte(':')
			w.value(p.val, join(path, p.key.Value))
		}
		w.out.WriteByte('}')
	case yaml.SequenceNode:
		w.out.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.value(item, index(path, i))
		}
		w.out.WriteByte(']')
	default:
		w.scalar(n, path)
	}
}

func (w *jsonWriter) key(n *yaml.Node, path string) {
	w.mark(n)
	if tag := n.ShortTag(); tag != stringTag {
		w.ok = false
		w.d.errorf(n, join(path, n.Value), "a key must be a text: put %s in quotes", quote(n.Value))
	}
	w.text(n.Value)
}

func (w *jsonWriter) scalar(n *yaml.Node, path string) {
	switch n.ShortTag() {
	case nullTag:
		w.out.WriteString("null")
	case boolTag:
		w.out.Write(bytes.ToLower([]byte(n.Value)))
	case intTag, floatTag:
		if !isJSONNumber(n.Value) {
			w.ok = false
			w.d.errorf(n, path, "%s is not a number in JSON: write it in digits, or in quotes if it is a text", quote(n.Value))
		}
		w.out.WriteString(n.Value)
	default:
		w.text(n.Value)
	}
}

func (w *jsonWriter) text(s string) {
	enc := json.NewEncoder(&w.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes, a buffer always takes it
	w.out.Truncate(w.out.Len() - 1)
}

func isJSONNumber(s string) bool {
	return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') && json.Valid([]byte(s))
}

// pattern reads the pattern of a rule, and places what is wrong with it at the
// line and column it was written in.
func (d *decoder) pattern(n *yaml.Node, path string, into *rules.Pattern) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, path, "is %s, wants a pattern such as {type: [order.created]}", describe(n))
		return
	}
	doc, ok := d.toJSON(n, path)
	if !ok {
		return
	}
	pattern, err := rules.ParsePattern(doc.text)
	if err == nil {
		*into = pattern
		return
	}
	at, msg := d.pos(n), err.Error()
	var fault *rules.PatternError
	if errors.As(err, &fault) {
		at, msg = doc.posOf(fault.Offset), fault.Msg
		if fault.Path != "" {
			path += "." + fault.Path
		}
	}
	d.report.errorf(at, path, "%s", msg)
}
