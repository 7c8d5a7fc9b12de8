package config

import (
	"encoding"
	"encoding/json"
	"reflect"

	"sluice/bus/dispatch"
	"sluice/config/value"
	"sluice/rules"
)

// object is a JSON Schema or a part of one.
type object = map[string]any

// Schema is the JSON Schema (2020-12) of a config, for editors. It derives from
// the kinds of opts and the tags of the structs, and holds whatever Load takes.
func Schema(opts Options) []byte {
	root := structSchema(reflect.ValueOf(defaults()).Elem())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Sluice configuration"
	root["type"] = "object"

	from, to, sinkKinds := object{}, structSchema(reflect.ValueOf(dispatch.DefaultOptions())), []any{}
	for _, k := range opts.Sources {
		from[k.Name] = describedAs(k.Doc, structSchema(reflect.ValueOf(k.New()).Elem()))
	}
	for _, k := range opts.Sinks {
		to["properties"].(object)[k.Name] = describedAs(k.Doc, structSchema(reflect.ValueOf(k.New()).Elem()))
		sinkKinds = append(sinkKinds, object{"required": []string{k.Name}})
	}
	to["type"] = "object"
	to["oneOf"] = sinkKinds
	rule := structSchema(reflect.ValueOf(Rule{Enabled: true}))
	rule["type"], rule["required"] = "object", []string{"match", "to"}
	test := structSchema(reflect.ValueOf(Test{}))
	test["type"], test["required"] = "object", []string{"event", "expect"}

	properties := root["properties"].(object)
	properties["sources"] = namedSchema("Where events come from, by name. The one key of a source is its kind.", object{
		"type": "object", "properties": from, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
	})
	properties["sinks"] = namedSchema("Where events go, by name: a kind, and the options of its delivery.", to)
	properties["rules"] = namedSchema("Which events go where, by name.", rule)
	properties["tests"] = object{"description": "Events and the sinks they have to reach.", "type": "array", "items": test}

	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("config: the schema is no JSON: " + err.Error()) // maps of texts and numbers always are
	}
	return append(text, '\n')
}

func describedAs(doc string, schema object) object {
	schema["description"] = doc
	return schema
}

// namedSchema is a section of named entries.
func namedSchema(doc string, entry object) object {
	return object{
		"description":          doc,
		"type":                 []string{"object", "null"},
		"propertyNames":        object{"pattern": validName.String()},
		"additionalProperties": entry,
	}
}

// structSchema is the schema of a struct that holds its defaults.
func structSchema(v reflect.Value) object {
	properties := object{}
	for _, f := range fieldsOf(v.Type()) {
		s := schemaOf(v.FieldByIndex(f.index), f.tag)
		if f.doc != "" {
			s["description"] = f.doc
		}
		if standard := defaultOf(v.FieldByIndex(f.index)); standard != "" {
			s["default"] = defaultValue(v.FieldByIndex(f.index), standard)
		}
		properties[f.key] = s
	}
	return object{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
}

// defaultValue is a default in the type of its schema.
func defaultValue(v reflect.Value, text string) any {
	if _, isText := v.Interface().(encoding.TextMarshaler); isText {
		return text
	}
	return v.Interface()
}

func schemaOf(v reflect.Value, tag reflect.StructTag) object {
	t := v.Type()
	switch reflect.New(t).Interface().(type) {
	case *value.Duration:
		return object{"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0,
			"pattern": `^(0|([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$`}
	case *value.Bytes:
		return object{"type": []string{"string", "number"}, "minimum": 0, "pattern": `^[0-9.]+ *([KMGT]i?)?B?$`}
	case *value.Rate:
		return object{"type": "string", "pattern": `^(unlimited|[0-9.eE+-]+ */.+)$`}
	case *value.URL:
		return object{"type": "string"}
	case *value.Secret:
		return object{"type": "string", "writeOnly": true, "minLength": 1}
	case *value.Secrets:
		secret := schemaOf(reflect.ValueOf(&value.Secret{}).Elem(), "")
		return object{"anyOf": []any{secret, object{"type": "array", "items": secret, "minItems": 1}}}
	case *value.Text:
		return object{"type": "string"}
	case *rules.Pattern:
		return object{"type": "object", "minProperties": 1}
	case *rules.Where:
		return object{"type": "string", "minLength": 1}
	case *json.RawMessage:
		return object{}
	case encoding.TextUnmarshaler:
		if hasShortForm(t) {
			return object{"anyOf": []any{object{"type": "string"}, structSchema(v)}}
		}
		return object{"type": []string{"string", "number", "boolean"}}
	}
	return kindSchema(v, tag)
}

func kindSchema(v reflect.Value, tag reflect.StructTag) object {
	t := v.Type()
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(reflect.New(t.Elem()).Elem(), tag)
	case reflect.Struct:
		return structSchema(v)
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": schemaOf(reflect.New(t.Elem()).Elem(), tag)}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(reflect.New(t.Elem()).Elem(), tag)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		if enum := split(tag.Get("enum")); len(enum) > 0 {
			return object{"type": "string", "enum": enum}
		}
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	}
	return object{"type": "integer"}
}
