package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"sluice/bus/dispatch"
)

// KindDoc describes one kind of source or sink.
type KindDoc struct {
	Role string   `json:"role"` // "source" or "sink"
	Name string   `json:"name"` // the key in the config
	Doc  string   `json:"doc"`
	Keys []KeyDoc `json:"keys"`

	// Ignores are the options of sinks that do nothing beside it, and are refused.
	Ignores []string `json:"ignores,omitempty"`
}

// Options describes the keys that stand beside a kind of sink.
func (k KindDoc) Options() []KeyDoc {
	return slices.DeleteFunc(SinkOptions(), func(o KeyDoc) bool {
		key, _, _ := strings.Cut(o.Key, ".")
		return contains(k.Ignores, key)
	})
}

// KeyDoc describes one key. Keys inside others are written with a dot, those of
// list items with [].
type KeyDoc struct {
	Key     string   `json:"key"`
	Type    string   `json:"type"`
	Default string   `json:"default"` // "" when there is none
	Enum    []string `json:"enum,omitempty"`
	Doc     string   `json:"doc"`
}

// Kinds describes every kind of opts, from its table and the tags of its settings.
func Kinds(opts Options) []KindDoc {
	var docs []KindDoc
	for _, k := range opts.Sources {
		docs = append(docs, KindDoc{"source", k.Name, k.Doc, keyDocs(nil, "", reflect.ValueOf(k.New()).Elem()), nil})
	}
	for _, k := range opts.Sinks {
		docs = append(docs, KindDoc{"sink", k.Name, k.Doc, keyDocs(nil, "", reflect.ValueOf(k.New()).Elem()), k.Ignores})
	}
	return docs
}

// SinkOptions describes the keys that stand beside the kind of every sink.
func SinkOptions() []KeyDoc {
	return keyDocs(nil, "", reflect.ValueOf(dispatch.DefaultOptions()))
}

// Keys describes the sections of a config, without sources, sinks, rules and
// tests.
func Keys() []KeyDoc { return keyDocs(nil, "", reflect.ValueOf(defaults()).Elem()) }

// Doc is a listing of every kind with its keys, and of the options that all sinks
// have.
func Doc(opts Options) string {
	var b strings.Builder
	for _, k := range Kinds(opts) {
		fmt.Fprintf(&b, "%s %s: %s\n", k.Role, k.Name, k.Doc)
		writeKeys(&b, k.Keys)
	}
	b.WriteString("every sink, beside its kind:\n")
	writeKeys(&b, SinkOptions())
	return b.String()
}

func writeKeys(b *strings.Builder, keys []KeyDoc) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, k := range keys {
		standard := k.Default
		if standard == "" {
			standard = "-"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", k.Key, k.Type, standard, k.Doc)
	}
	_ = w.Flush() // into a Builder
	b.WriteByte('\n')
}

// keyDocs describes the keys of a struct that holds its defaults.
func keyDocs(docs []KeyDoc, prefix string, v reflect.Value) []KeyDoc {
	for _, f := range fieldsOf(v.Type()) {
		key := prefix + f.key
		value := v.FieldByIndex(f.index)
		docs = append(docs, KeyDoc{key, typeName(f.typ), defaultOf(value), split(f.tag.Get("enum")), f.doc})
		t := f.typ
		for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
			if t.Kind() == reflect.Slice {
				key += "[]"
			}
			t = t.Elem()
			value = reflect.New(t).Elem()
		}
		if t.Kind() == reflect.Struct && !isValue(t) {
			docs = keyDocs(docs, key+".", value)
		}
	}
	return docs
}

// isValue reports a type that is written as one text, whatever it is made of.
func isValue(t reflect.Type) bool { return typeName(t) != "mapping" && !hasShortForm(t) }

// defaultOf is how a default is written, "" for the zero value.
func defaultOf(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	if s, ok := v.Interface().(encoding.TextMarshaler); ok && isValue(v.Type()) {
		text, err := s.MarshalText()
		if err != nil || v.IsZero() && string(text) != always {
			return ""
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Struct, reflect.Pointer, reflect.Map, reflect.Slice:
		return ""
	}
	if v.IsZero() {
		return ""
	}
	return fmt.Sprint(v.Interface())
}
