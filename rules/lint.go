package rules

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// What can be said of patterns without an event. Every answer here is one-sided:
// a contradiction, an equality or a cover that is reported is one; some that are
// there are not seen, because finding each takes time that grows with the
// product of all $or.

// Contradiction tells why no document at all can match a pattern. It sees
// numeric ranges that hold no number, and a path that has to be there and, by
// exists: false, not to be there. Values that exclude each other are none: an
// array may hold both.
func Contradiction(p Pattern) (why string, never bool) {
	return contradicts(p, false)
}

// EventContradiction tells why no CloudEvent can match a pattern: for what
// Contradiction says, or because it asks attributes for what they never are.
func EventContradiction(p Pattern) (why string, never bool) {
	return contradicts(p, true)
}

func contradicts(p Pattern, event bool) (string, bool) {
	if p.root == nil {
		return "the zero Pattern matches nothing", true
	}
	why := prover{event}.group(p.root, nil)
	return why, why != ""
}

// prover looks for contradictions, in documents or in CloudEvents only.
type prover struct{ event bool }

// claim is what the fields seen so far say of one path.
type claim struct {
	present, absent bool
	exact           []condition // what it is one of; nil for anything
}

// group says why no document matches a group beside what the groups around it
// claim, "" if some may.
func (v prover) group(g *group, outer map[string]claim) string {
	claims := maps.Clone(outer)
	if claims == nil {
		claims = map[string]claim{}
	}
	for _, f := range g.fields {
		alive, why := v.alive(f)
		if len(alive) == 0 {
			return f.path + ": " + why
		}
		c := claims[f.path]
		if why := c.add(alive, v.event && isAttribute(f.path)); why != "" {
			return f.path + ": " + why
		}
		claims[f.path] = c
	}
	for _, alt := range g.anyOf {
		first := ""
		for i := range alt.groups {
			why := v.group(&alt.groups[i], claims)
			if why == "" {
				first = ""
				break
			}
			if first == "" {
				first = why
			}
		}
		if first != "" {
			return "no object in $or can hold: " + first
		}
	}
	return ""
}

// add takes in the conditions of a further field on the path. With single, the
// path has one value at most.
func (c *claim) add(conds []condition, single bool) string {
	absent := slices.ContainsFunc(conds, func(x condition) bool { return x.op == opAbsent })
	onlyAbsent := !slices.ContainsFunc(conds, func(x condition) bool { return x.op != opAbsent })
	c.present, c.absent = c.present || !absent, c.absent || onlyAbsent
	if c.present && c.absent {
		return "has to be there and, as exists: false says, not to be there"
	}
	if !single || slices.ContainsFunc(conds, func(x condition) bool { return !x.exact() }) {
		return ""
	}
	if c.exact == nil {
		c.exact = conds
		return ""
	}
	c.exact = slices.DeleteFunc(slices.Clone(c.exact), func(x condition) bool { return !x.impliesAny(conds) })
	if len(c.exact) == 0 {
		return "has to have two values at once, and an attribute has one"
	}
	return ""
}

// alive is the conditions of a field that some document can fulfil, and if
// there are none, why the last one cannot.
func (v prover) alive(f field) (list []condition, why string) {
	for _, c := range f.conds {
		dead := c.empty()
		if dead == "" && v.event {
			dead = deadOnEvents(f.path, c)
		}
		if dead != "" {
			why = dead
			continue
		}
		list = append(list, c)
	}
	return list, why
}

// empty says why nothing fulfils a condition, "" if something does.
func (c condition) empty() string {
	if c.op == opRange && (c.lo > c.hi || c.lo > orderedKey(math.MaxFloat64) || c.hi < orderedKey(-math.MaxFloat64)) {
		return "no number lies in " + c.src
	}
	return ""
}

// isAttribute tells whether a path of a CloudEvent is not within its data.
func isAttribute(path string) bool { return path != "data" && !strings.HasPrefix(path, "data.") }

// deadOnEvents says why no CloudEvent fulfils a condition, "" if one may.
func deadOnEvents(path string, c condition) string {
	if !isAttribute(path) {
		return ""
	}
	name, below, nested := strings.Cut(path, ".")
	switch required := isRequired(name); {
	case c.op == opAbsent && required && !nested:
		return "every CloudEvent has this attribute"
	case c.op == opAbsent:
		return ""
	case nested && name == "detail":
		return "EventBridge's detail is data here: write data." + below
	case nested:
		return "attributes are texts, numbers or booleans, and have nothing below them; the payload is below data"
	case !isAttributeName(name):
		return "no attribute has such a name, which is lower-case letters and digits" + meant(name)
	case c.op == opNull:
		return "no attribute is null"
	case isTextAttribute(name) && (c.op == opNumber || c.op == opTrue || c.op == opFalse || c.op == opRange):
		return fmt.Sprintf("this attribute is always a text, never %s: put it in quotes", c.src)
	case name == "specversion" && c.op == opText && c.text != "1.0":
		return `every event here has the specversion "1.0"`
	}
	return ""
}

// meant is what to add for a name that is no attribute's.
func meant(name string) string {
	switch name {
	case "detail-type", "detailType":
		return ": EventBridge's detail-type is type here"
	case "data_base64":
		return ": the payload is below data"
	}
	lower := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	if lower != name && isAttributeName(lower) {
		return ": write " + lower
	}
	return ""
}

func isAttributeName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// isRequired tells whether every CloudEvent has the attribute.
func isRequired(name string) bool {
	switch name {
	case "specversion", "id", "source", "type":
		return true
	}
	return false
}

// isTextAttribute tells whether CloudEvents itself defines the attribute: all of
// those are texts.
func isTextAttribute(name string) bool {
	switch name {
	case "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return isRequired(name)
}

// Paths are the paths on which a pattern wants some value, dotted, sorted and
// each once. A path that exists: false alone is about is none of them.
func Paths(p Pattern) []string {
	var paths []string
	var walk func(*group)
	walk = func(g *group) {
		for _, f := range g.fields {
			if slices.ContainsFunc(f.conds, func(c condition) bool { return c.op != opAbsent }) {
				paths = append(paths, f.path)
			}
		}
		for _, alt := range g.anyOf {
			for i := range alt.groups {
				walk(&alt.groups[i])
			}
		}
	}
	if p.root != nil {
		walk(p.root)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
