package config

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sluice/config/value"
	"sluice/rules"
)

// field is one key of a struct that the decoder fills.
type field struct {
	key   string
	doc   string
	tag   reflect.StructTag
	typ   reflect.Type
	index []int
}

// fieldsOf are the keys of a struct type in the order of its fields: the name in
// the yaml tag, or the field's own in lower case. An embedded struct without a
// name and one that is tagged inline add their keys to it.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, flags, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := flags == "inline" || f.Anonymous && name == ""
		switch {
		case name == "-" || !f.IsExported():
		case inline && f.Type.Kind() == reflect.Struct:
			for _, in := range fieldsOf(f.Type) {
				in.index = append([]int{i}, in.index...)
				fields = append(fields, in)
			}
		default:
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			fields = append(fields, field{name, f.Tag.Get("doc"), f.Tag, f.Type, []int{i}})
		}
	}
	return fields
}

// typeName says what a value of type t is, in the words of the docs.
func typeName(t reflect.Type) string {
	switch reflect.New(t).Interface().(type) {
	case *value.Duration:
		return "duration"
	case *value.Bytes:
		return "size"
	case *value.Rate:
		return "rate"
	case *value.URL:
		return "URL"
	case *value.Secret:
		return "secret"
	case *value.Secrets:
		return "secret or list"
	case *value.Text:
		return "text"
	case *rules.Pattern:
		return "pattern"
	case *rules.Where:
		return "expression"
	case *json.RawMessage:
		return "value"
	case encoding.TextUnmarshaler:
		if hasShortForm(t) {
			return "text or mapping"
		}
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Struct:
		return "mapping"
	case reflect.Map:
		return "mapping to " + typeName(t.Elem())
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	}
	return "whole number"
}

// wanted says what a value of type t has to look like.
func wanted(t reflect.Type) string {
	switch name := typeName(t); name {
	case "duration":
		return `a duration such as "30s"`
	case "size":
		return `a size such as "10MiB"`
	case "rate":
		return `a rate such as "100/s"`
	default:
		return "a " + name
	}
}

// hasShortForm reports a struct that may be written as one text too.
func hasShortForm(t reflect.Type) bool {
	_, text := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	return text && t.Kind() == reflect.Struct && len(fieldsOf(t)) > 0 && t != reflect.TypeFor[value.Rate]()
}

// split takes the items of a tag apart.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// oneOf is "a, b or c".
func oneOf(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// quote is s in quotes, cut when it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
