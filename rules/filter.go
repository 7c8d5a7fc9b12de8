package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Filters are the filters of a subscription as the CloudEvents Subscriptions API
// has them: every one of them must hold. A filter is an object of one dialect:
//
//	{"exact": {"type": "order.created"}}   each attribute has just that value
//	{"prefix": {"subject": "eu/"}}         … begins with it
//	{"suffix": {"subject": ".jpg"}}        … ends with it
//	{"all": [filter, …]}                   every one holds
//	{"any": [filter, …]}                   one holds
//	{"not": filter}                        it does not hold
//	{"sql": "EXISTS tenant AND …"}         a CloudEvents SQL expression is true
//
// An attribute that the event does not have makes exact, prefix and suffix false.
type Filters struct {
	pattern Pattern
	where   *Where
}

// Pattern is the part that a pattern can express, which selects fast.
func (f Filters) Pattern() Pattern { return f.pattern }

// Where is the rest; nil for none.
func (f Filters) Where() *Where { return f.where }

// maxFilterDepth is how deep filters may be nested.
const maxFilterDepth = 16

// FilterError says which filter is wrong, and what to do.
type FilterError struct {
	Path string // such as filters[1].any[0].exact
	Msg  string
}

func (e *FilterError) Error() string { return e.Path + ": " + e.Msg }

// ParseFilters reads the filters of a subscription, and its source and types, which
// are filters too; each may be empty. match is an event pattern that must match
// beside all that; nil for none. An error is always a *FilterError.
func ParseFilters(match json.RawMessage, source string, types []string, filters []json.RawMessage) (Filters, error) {
	c := filterCompiler{match: match, pattern: map[string][]any{}}
	if source != "" {
		c.require("source", source)
	}
	if slices.Contains(types, "") {
		return Filters{}, &FilterError{"types", "one of them is empty: leave it out"}
	}
	if len(types) > 0 {
		c.require("type", types...)
	}
	for i, raw := range filters {
		if err := c.top(fmt.Sprintf("filters[%d]", i), raw, 1); err != nil {
			return Filters{}, err
		}
	}
	return c.compile()
}

// filterCompiler turns filters into a pattern and an expression.
type filterCompiler struct {
	match   json.RawMessage  // a pattern that was given; then pattern stays empty
	pattern map[string][]any // by attribute
	where   []string         // all of which must be true
}

// require lets only events through that have one of the values.
func (c *filterCompiler) require(attr string, values ...string) {
	if c.match == nil {
		for _, v := range values {
			c.pattern[attr] = append(c.pattern[attr], v)
		}
		return
	}
	var parts []string
	for _, v := range values {
		parts = append(parts, comparisonText("exact", attr, v))
	}
	c.where = append(c.where, "("+strings.Join(parts, " OR ")+")")
}

func (c *filterCompiler) compile() (f Filters, err error) {
	if c.match != nil {
		if f.pattern, err = ParsePattern(c.match); err != nil {
			return f, &FilterError{"match", err.Error()}
		}
	} else {
		if len(c.pattern) == 0 {
			c.pattern["type"] = []any{map[string]bool{"exists": true}}
		}
		text, err := json.Marshal(c.pattern)
		if err == nil {
			f.pattern, err = ParsePattern(text)
		}
		if err != nil {
			return f, &FilterError{"filters", err.Error()}
		}
	}
	if len(c.where) > 0 {
		if f.where, err = ParseWhere(strings.Join(c.where, " AND ")); err != nil {
			return f, &FilterError{"filters", err.Error()}
		}
	}
	return f, nil
}

// dialect takes a filter apart.
func dialect(path string, raw json.RawMessage) (name string, body json.RawMessage, err error) {
	var filter map[string]json.RawMessage
	if err := json.Unmarshal(raw, &filter); err != nil || len(filter) != 1 {
		return "", nil, &FilterError{path, `is not an object with one dialect: write one such as {"prefix": {"type": "order."}}`}
	}
	for name, body = range filter {
	}
	return name, body, nil
}

// attributes are those of an exact, prefix or suffix filter, sorted.
func attributes(path string, body json.RawMessage) (names []string, values map[string]string, err error) {
	if err := json.Unmarshal(body, &values); err != nil || len(values) == 0 {
		return nil, nil, &FilterError{path, `is not an object of attributes and texts, such as {"type": "order.created"}`}
	}
	for name, value := range values {
		switch {
		case name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || name == "data":
			return nil, nil, &FilterError{path, fmt.Sprintf("%q is not the name of an attribute: lower-case letters and digits", name)}
		case value == "":
			return nil, nil, &FilterError{path + "." + name, "is empty: no attribute is"}
		}
		names = append(names, name)
	}
	sort.Strings(names)
	return names, values, nil
}

// top takes a filter that must hold by itself: what a pattern can say goes there.
func (c *filterCompiler) top(path string, raw json.RawMessage, depth int) error {
	if depth > maxFilterDepth {
		return tooDeep(path)
	}
	name, body, err := dialect(path, raw)
	if err != nil {
		return err
	}
	at := path + "." + name
	switch name {
	case "exact", "prefix", "suffix":
		names, values, err := attributes(at, body)
		if err != nil {
			return err
		}
		for _, attr := range names {
			if _, taken := c.pattern[attr]; taken || c.match != nil {
				c.where = append(c.where, comparisonText(name, attr, values[attr]))
				continue
			}
			if name == "exact" {
				c.pattern[attr] = []any{values[attr]}
			} else {
				c.pattern[attr] = []any{map[string]string{name: values[attr]}}
			}
		}
		return nil
	case "all":
		parts, err := list(at, body)
		for i, part := range parts {
			if err := c.top(fmt.Sprintf("%s[%d]", at, i), part, depth+1); err != nil {
				return err
			}
		}
		return err
	}
	text, err := expression(path, raw, depth)
	c.where = append(c.where, text)
	return err
}

func tooDeep(path string) error {
	return &FilterError{path, fmt.Sprintf("is nested deeper than %d", maxFilterDepth)}
}

func list(path string, body json.RawMessage) (parts []json.RawMessage, err error) {
	if err := json.Unmarshal(body, &parts); err != nil || len(parts) == 0 {
		return nil, &FilterError{path, "is not a list of at least one filter"}
	}
	return parts, nil
}

// expression is a filter in CloudEvents SQL.
func expression(path string, raw json.RawMessage, depth int) (string, error) {
	if depth > maxFilterDepth {
		return "", tooDeep(path)
	}
	name, body, err := dialect(path, raw)
	if err != nil {
		return "", err
	}
	at := path + "." + name
	switch name {
	case "exact", "prefix", "suffix":
		names, values, err := attributes(at, body)
		if err != nil {
			return "", err
		}
		var parts []string
		for _, attr := range names {
			parts = append(parts, comparisonText(name, attr, values[attr]))
		}
		return "(" + strings.Join(parts, " AND ") + ")", nil
	case "all", "any":
		members, err := list(at, body)
		if err != nil {
			return "", err
		}
		var parts []string
		for i, member := range members {
			part, err := expression(fmt.Sprintf("%s[%d]", at, i), member, depth+1)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		return "(" + strings.Join(parts, map[string]string{"all": " AND ", "any": " OR "}[name]) + ")", nil
	case "not":
		part, err := expression(at, body, depth+1)
		return "(NOT " + part + ")", err
	case "sql":
		var text string
		if err := json.Unmarshal(body, &text); err != nil {
			return "", &FilterError{at, "is not a text"}
		}
		if _, err := ParseWhere(text); err != nil {
			return "", &FilterError{at, err.Error()}
		}
		return "(" + text + ")", nil
	}
	return "", &FilterError{at, "is not a dialect: there are " + strings.Join(FilterDialects(), ", ")}
}

// FilterDialects are the names that a filter may have.
func FilterDialects() []string {
	return []string{"exact", "prefix", "suffix", "all", "any", "not", "sql"}
}

// comparisonText is one attribute of an exact, prefix or suffix filter.
func comparisonText(name, attr, value string) string {
	text := textExpression(value)
	if name == "exact" {
		return "(EXISTS " + attr + " AND " + attr + " = " + text + ")"
	}
	// A text without wildcards needs no LIKE. The length is one of bytes, as the
	// functions count.
	side := map[string]string{"prefix": "LEFT", "suffix": "RIGHT"}[name]
	return fmt.Sprintf("(EXISTS %s AND %s(%s, %d) = %s)", attr, side, attr, len(value), text)
}

// textExpression is an expression that has any text as its value. Between quotes a
// backslash stands for itself, unless a quote follows: that one it escapes, and nothing
// escapes it. Backslashes in such a place are cut from a text that ends otherwise.
func textExpression(value string) string {
	var parts []string
	from := 0
	for i := 0; i < len(value); i++ {
		if value[i] != '\\' {
			continue
		}
		end := i
		for end < len(value) && value[end] == '\\' {
			end++
		}
		if end == len(value) || value[end] == '\'' {
			if from < i {
				parts = append(parts, textLiteral(value[from:i]))
			}
			parts = append(parts, fmt.Sprintf("LEFT('%s.', %d)", value[i:end], end-i))
			from = end
		}
		i = end - 1
	}
	if from < len(value) {
		parts = append(parts, textLiteral(value[from:]))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return "CONCAT(" + strings.Join(parts, ", ") + ")"
}

func textLiteral(text string) string { return "'" + strings.ReplaceAll(text, "'", `\'`) + "'" }
