package rules

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// variable is what <name> stands for.
type variable struct {
	name    string
	builtin func(*scope) result
	steps   []step // of a path that begins with $
	gjson   string // any other path
}

// step is one step of a path: a key, an index, or every element.
type step struct {
	key   string
	index int
	kind  stepKind
}

type stepKind byte

const (
	stepKey stepKind = iota
	stepIndex
	stepAll
)

// builtins are the variables that need no path. AWS's names for them are
// aws.events.rule-name, .event.ingestion-time, .event.json and .event.
func builtin(name string) *variable {
	var find func(*scope) result
	switch name {
	case "sluice.rule":
		find = func(s *scope) result { return textResult(s.in.Rule) }
	case "sluice.time":
		find = func(s *scope) result { return textResult(s.in.Accepted.UTC().Format(time.RFC3339Nano)) }
	case "sluice.event":
		find = func(s *scope) result { return result{raw: string(s.document()), found: true} }
	case "sluice.attributes":
		find = (*scope).attributes
	case "sluice.data":
		find = (*scope).data
	default:
		return nil
	}
	return &variable{name: name, builtin: find}
}

// parsePath reads where a variable is: JSONPath as EventBridge has it when it
// begins with $, else a gjson path.
func parsePath(name, path string) (*variable, *TransformError) {
	if path == "" {
		return nil, &TransformError{Msg: "is empty: write where the variable is, such as $.data.id"}
	}
	if path[0] != '$' {
		return &variable{name: name, gjson: path}, nil
	}
	v := &variable{name: name, steps: []step{}}
	for at := 1; at < len(path); {
		st, n, msg := parseStep(path[at:])
		if msg != "" {
			return nil, &TransformError{Offset: at, Msg: msg}
		}
		v.steps = append(v.steps, st)
		at += n
	}
	return v, nil
}

const pathHint = "write steps such as .key, .*, [0], [*] or ['key'], or a gjson path without $"

// parseStep reads the step that s begins with, and how long it is.
func parseStep(s string) (st step, n int, msg string) {
	switch {
	case strings.HasPrefix(s, ".*"):
		return step{kind: stepAll}, 2, ""
	case s[0] == '.':
		n = 1 + len(s[1:]) - len(strings.TrimLeft(s[1:], nameLetters+"/"))
		if end := strings.IndexAny(s[1:], ".["); end >= 0 && end+1 != n || end < 0 && n != len(s) || n == 1 {
			return st, 0, "is no step that is known: " + pathHint
		}
		return step{key: s[1:n]}, n, ""
	case s[0] != '[':
		return st, 0, "is no step that is known: " + pathHint
	}
	if len(s) > 1 && (s[1] == '\'' || s[1] == '"') {
		end := strings.Index(s[2:], s[1:2]+"]")
		if end < 0 {
			return st, 0, "this bracket is not closed"
		}
		return step{key: s[2 : 2+end]}, end + 4, ""
	}
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return st, 0, "this bracket is not closed"
	}
	if s[1:end] == "*" {
		return step{kind: stepAll}, end + 1, ""
	}
	i, err := strconv.ParseUint(s[1:end], 10, 31)
	if err != nil {
		return st, 0, "is no index: " + pathHint
	}
	return step{kind: stepIndex, index: int(i)}, end + 1, ""
}

// result is the value of a variable, as JSON.
type result struct {
	raw   string
	found bool
	err   error
}

func textResult(s string) result { return result{raw: string(appendQuoted(nil, s)), found: true} }

// scope is one event that variables are looked up in.
type scope struct {
	in  TransformInput
	doc []byte // the event's JSON form, once somebody needed it
}

func (s *scope) document() []byte {
	if s.doc == nil {
		s.doc = s.in.Event.AppendJSON(nil)
	}
	return s.doc
}

func (s *scope) value(v *variable) result {
	switch {
	case v.builtin != nil:
		return v.builtin(s)
	case v.steps != nil:
		return s.byPath(v.steps)
	}
	return s.byGJSON(v)
}

// byPath walks a path through the event, whose JSON form is not built for it.
func (s *scope) byPath(steps []step) result {
	switch {
	case len(steps) == 0:
		return result{raw: string(s.document()), found: true}
	case steps[0].kind != stepKey:
		return walk(gjson.ParseBytes(s.document()), steps)
	case steps[0].key != "data":
		if r := s.attribute(steps[0].key); len(steps) == 1 {
			return r
		}
		return result{} // an attribute has nothing in it
	case len(steps) == 1:
		return s.data()
	case !s.in.Event.DataIsJSON():
		return result{}
	}
	return walk(gjson.ParseBytes(s.in.Event.Data()), steps[1:])
}

func walk(v gjson.Result, steps []step) result {
	for i, st := range steps {
		switch {
		case st.kind == stepAll && (v.IsObject() || v.IsArray()):
			return each(v, steps[i+1:])
		case st.kind == stepKey && v.IsObject(), st.kind == stepIndex && v.IsArray():
			v = child(v, st)
		default:
			return result{}
		}
		if !v.Exists() {
			return result{}
		}
	}
	return result{raw: v.Raw, found: true}
}

// child is the member or element that a step names.
func child(v gjson.Result, st step) (found gjson.Result) {
	i := 0
	v.ForEach(func(k, m gjson.Result) bool {
		if st.kind == stepIndex && i == st.index || st.kind == stepKey && k.String() == st.key {
			found = m
			return false
		}
		i++
		return true
	})
	return found
}

// each is the list of what is found below every child.
func each(v gjson.Result, steps []step) result {
	list := []byte{'['}
	v.ForEach(func(_, m gjson.Result) bool {
		if r := walk(m, steps); r.found {
			if len(list) > 1 {
				list = append(list, ',')
			}
			list = append(list, r.raw...)
		}
		return true
	})
	return result{raw: string(append(list, ']')), found: len(list) > 1}
}

func (s *scope) byGJSON(v *variable) result {
	if r := s.attribute(v.gjson); r.found {
		return r
	}
	var r gjson.Result
	if rest, ok := strings.CutPrefix(v.gjson, "data."); ok && s.in.Event.DataIsJSON() {
		r = gjson.GetBytes(s.in.Event.Data(), rest)
	} else {
		r = gjson.GetBytes(s.document(), v.gjson)
	}
	if !r.Exists() {
		return result{}
	}
	if !gjson.Valid(r.Raw) { // a literal in the path may be anything
		return result{err: fmt.Errorf("the path of <%s> gives no JSON value", v.name)}
	}
	return result{raw: r.Raw, found: true}
}

func (s *scope) attribute(name string) result {
	e := s.in.Event
	for i := range e.NumAttributes() {
		if n, v, literal := e.Attribute(i); n == name {
			if literal {
				return result{raw: v, found: true}
			}
			return textResult(v)
		}
	}
	return result{}
}

// attributes is the event without its data, as JSON.
func (s *scope) attributes() result {
	doc := []byte{'{'}
	for i := range s.in.Event.NumAttributes() {
		name, v, literal := s.in.Event.Attribute(i)
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = append(appendQuoted(doc, name), ':')
		if literal {
			doc = append(doc, v...)
		} else {
			doc = appendQuoted(doc, v)
		}
	}
	return result{raw: string(append(doc, '}')), found: true}
}

// data is the event's data: as it is if it is JSON, else as a text, and in base64
// when it is none.
func (s *scope) data() result {
	data := s.in.Event.Data()
	switch {
	case len(data) == 0:
		return result{}
	case s.in.Event.DataIsJSON():
		return result{raw: string(data), found: true}
	case utf8.Valid(data):
		return textResult(string(data))
	}
	return textResult(base64.StdEncoding.EncodeToString(data))
}
