package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/bus/jsonscan"
)

// maxNear is how many near misses of one key are named.
const maxNear = 3

// json gives a leaf as JSON, shortened if it is long.
func (l *leaf) json() string {
	switch l.kind {
	case kindText:
		return quoted(string(l.val))
	case kindNumber:
		return string(l.val)
	case kindTrue:
		return "true"
	case kindFalse:
		return "false"
	}
	return "null"
}

// quoted is a string as JSON, shortened if it is long.
func quoted(s string) string {
	const most = 120
	more := ""
	if utf8.RuneCountInString(s) > most {
		s, more = string([]rune(s)[:most]), "…"
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return `"?"`
	}
	return strings.TrimSpace(b.String()) + more
}

// nearValues compares what was wanted with what was found.
func (x *explainer) nearValues(f *field, path uint32) []string {
	var near []string
	for at := x.leavesOf(path); at >= 0; at = x.leaves[at].next {
		for i := range f.conds {
			n := nearMiss(&f.conds[i], &x.leaves[at])
			if n == "" || slices.Contains(near, n) {
				continue
			}
			if near = append(near, n); len(near) == maxNear {
				return near
			}
		}
	}
	return near
}

// nearMiss says how a value narrowly fails a condition, "" if it is far off.
func nearMiss(c *condition, l *leaf) string {
	switch c.op {
	case opAbsent:
		return "exists: false wants no value here"
	case opNot:
		return fmt.Sprintf("%s is among what %s excludes", l.json(), oneLine(c.src))
	case opNumber, opRange:
		return nearNumber(c, l)
	case opTrue, opFalse, opNull:
		if l.kind == kindText && string(l.val) == c.src {
			return fmt.Sprintf("found the string %s, wanted %s without quotes", l.json(), c.src)
		}
		return ""
	case opExists:
		return ""
	}
	if l.kind != kindText {
		return nearKind(c, l)
	}
	return nearText(c, string(l.val))
}

func nearNumber(c *condition, l *leaf) string {
	if l.kind == kindText {
		text := l.text()
		key, ok := uint64(0), jsonscan.Number(l.val, 0) == len(text)
		if ok {
			key, ok = numberKey(text)
		}
		if c.op == opNumber && !ok && text != c.text {
			return ""
		}
		if ok && c.lo <= key && key <= c.hi || text == c.text {
			return fmt.Sprintf("found the string %s, wanted a number: strings never equal numbers", l.json())
		}
		return fmt.Sprintf("found the string %s, %s looks at numbers only", l.json(), c.name())
	}
	if l.kind != kindNumber {
		return ""
	}
	key, ok := l.numberKey()
	switch {
	case !ok:
		return fmt.Sprintf("%s has more digits than a double keeps, so it equals only its own text and is in no range", l.json())
	case c.op == opRange && (key+1 == c.lo || c.hi+1 == key):
		return fmt.Sprintf("%s is the bound itself, which %s leaves out", l.json(), oneLine(c.src))
	}
	return ""
}

// name is how messages call a condition.
func (c *condition) name() string {
	if c.op <= opNull {
		return c.src
	}
	_, name, _ := strings.Cut(c.src, `"`)
	name, _, _ = strings.Cut(name, `"`)
	return name
}

// nearKind is about a string operator and a value that is not a string.
func nearKind(c *condition, l *leaf) string {
	if c.op == opText {
		if l.kind == kindNumber && (c.text == string(l.val) || sameNumber(c.text, l)) {
			return fmt.Sprintf("found the number %s, wanted the string %s: write it without quotes", l.json(), c.src)
		}
		if l.json() == c.text {
			return fmt.Sprintf("found %s, wanted the string %s: write it without quotes", l.json(), c.src)
		}
		return ""
	}
	return fmt.Sprintf("%s looks at strings only, found %s", c.name(), l.json())
}

func sameNumber(text string, l *leaf) bool {
	if jsonscan.Number([]byte(text), 0) != len(text) {
		return false
	}
	a, ok1 := numberKey(text)
	b, ok2 := l.numberKey()
	return ok1 && ok2 && a == b
}

func nearText(c *condition, found string) string {
	switch c.op {
	case opText:
		return nearEqual(c, found)
	case opPrefix:
		if foldPrefix(c.text, found) {
			return `differs only in case: use {"prefix": {"equals-ignore-case": …}}`
		}
		if at := oneOff(c.text, found); at >= 0 {
			return fmt.Sprintf("the prefix is right but for the character at %d: wanted %s, found %s", at, quoted(c.text), quoted(cut(found, len(c.text))))
		}
	case opSuffix:
		if foldSuffix(c.text, found) {
			return `differs only in case: use {"suffix": {"equals-ignore-case": …}}`
		}
		if at := len(found) - len(c.text); at >= 0 && oneOff(c.text, found[at:]) >= 0 {
			return fmt.Sprintf("the suffix is right but for one character: wanted %s, found %s", quoted(c.text), quoted(found[at:]))
		}
	case opFold:
		if foldEqual(c.text, strings.TrimSpace(found)) {
			return "differs only in white space around it"
		}
	case opGlob:
		return nearGlob(c.glob, found)
	case opCIDR:
		if _, ok := parseAddress(found); !ok {
			return fmt.Sprintf("%s is not an IP address", quoted(found))
		}
	}
	return ""
}

func nearEqual(c *condition, found string) string {
	switch {
	case foldEqual(c.text, found):
		return fmt.Sprintf("differs only in case: use {\"equals-ignore-case\": %s}", quoted(c.text))
	case strings.TrimSpace(found) == strings.TrimSpace(c.text):
		return "differs only in white space around it"
	case strings.ContainsRune(c.text, '*') && globMatches(c.text, found):
		return fmt.Sprintf("a plain value has no stars: use {\"wildcard\": %s}", quoted(c.text))
	case len(c.text) > 2 && editDistance(c.text, found) == 1:
		return fmt.Sprintf("one character off: wanted %s, found %s", quoted(c.text), quoted(found))
	case len(c.text) > 2 && strings.HasPrefix(found, c.text):
		return fmt.Sprintf("found more behind it: use {\"prefix\": %s}", quoted(c.text))
	case len(c.text) > 2 && strings.HasSuffix(found, c.text):
		return fmt.Sprintf("found more before it: use {\"suffix\": %s}", quoted(c.text))
	}
	return ""
}

func globMatches(operand, text string) bool {
	g, err := parseGlob(operand)
	return err == nil && g.match(text)
}

func nearGlob(g *glob, found string) string {
	folded := glob{head: strings.ToLower(g.head), tail: strings.ToLower(g.tail), literal: g.literal}
	for _, m := range g.middle {
		folded.middle = append(folded.middle, strings.ToLower(m))
	}
	lower := strings.ToLower(found)
	switch {
	case folded.match(lower):
		return "differs only in case; wildcard looks at upper and lower case"
	case g.literal:
		return "this wildcard has no star, so it is an exact value"
	case !strings.HasPrefix(found, g.head):
		return fmt.Sprintf("the text would have to begin with %s: begin the wildcard with * for any beginning", quoted(g.head))
	case !strings.HasSuffix(found, g.tail):
		return fmt.Sprintf("the text would have to end with %s: end the wildcard with * for any ending", quoted(g.tail))
	}
	return ""
}

// oneOff gives the place where the beginning of text differs from want by
// exactly one byte, -1 if it does not.
func oneOff(want, text string) int {
	if len(want) < 3 || len(text) < len(want) {
		return -1
	}
	at := -1
	for i := range len(want) {
		if want[i] != text[i] {
			if at >= 0 {
				return -1
			}
			at = i
		}
	}
	return at
}

func cut(s string, n int) string { return strings.ToValidUTF8(s[:min(n, len(s))], "") }

// nearPaths says where else a missing key might be.
func (x *explainer) nearPaths(f *field) []string {
	if x.opaque && (f.path == "data" || strings.HasPrefix(f.path, "data.")) {
		return []string{"the event's data is not JSON, so no pattern sees it: check datacontenttype"}
	}
	if slices.Contains(x.objects, f.path) {
		return []string{x.objectHint(f.path)}
	}
	var near []string
	for rank := range 4 {
		for _, v := range x.values {
			if pathDistance(f.path, v.path) != rank {
				continue
			}
			hint := fmt.Sprintf("there is %s with %s%s", v.path, oneLine(v.raw), pathAdvice(f.path, v.path, rank))
			if !slices.Contains(near, hint) {
				near = append(near, hint)
			}
			if len(near) == maxNear {
				return near
			}
		}
	}
	return near
}

// objectHint names the fields of an object where a value was wanted.
func (x *explainer) objectHint(path string) string {
	var below []string
	for _, v := range x.values {
		if rest, ok := strings.CutPrefix(v.path, path+"."); ok && !slices.Contains(below, rest) && len(below) < maxShown {
			below = append(below, rest)
		}
	}
	if len(below) == 0 {
		return "this is an empty object, which has no value"
	}
	return fmt.Sprintf("this is an object, name a field in it: %s", strings.Join(below, ", "))
}

// pathDistance ranks how alike two paths are, from 0; 4 and more is not.
func pathDistance(want, have string) int {
	switch {
	case want == have:
		return 9 // it is what is missing elsewhere
	case strings.EqualFold(want, have):
		return 0
	case strings.HasSuffix(have, "."+want) || strings.HasSuffix(want, "."+have):
		return 1
	case len(want) > 2 && editDistance(want, have) <= 1+len(want)/8:
		return 2
	case lastStep(want) == lastStep(have):
		return 3
	}
	return 9
}

func lastStep(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func pathAdvice(want, have string, rank int) string {
	switch {
	case rank == 0:
		return ": the key differs only in case"
	case have == "data."+want:
		return ": fields of the payload are under data"
	case want == "data."+have:
		return ": it is not under data"
	}
	return ""
}
