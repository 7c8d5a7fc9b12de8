package rules

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// The cases of the specification, and where the library's own LIKE goes wrong.
func TestWhereLike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		subject, where string
		want           bool
	}{
		{"50% off", `subject LIKE '50%off'`, true},
		{"50% off", `subject LIKE '50\% off'`, true},
		{"50% off", `subject LIKE '%\%%'`, true},
		{"50 off", `subject LIKE '%\%%'`, false},
		{"a%bc", `subject LIKE 'a%c'`, true},
		{"a%bc", `subject NOT LIKE 'a%c'`, false},
		{"%%", `subject LIKE '%'`, true},
		{"%%x", `subject LIKE "%x"`, true},
		{"a_b", `subject LIKE 'a\_b'`, true},
		{"axb", `subject LIKE 'a\_b'`, false},
		{"a_b_c", `subject LIKE 'a_b%'`, true},
		{`\`, `subject LIKE '\%'`, false},
		{`\x`, `subject LIKE '\%'`, false},
		{`a\b`, `subject LIKE 'a\b'`, true},
		{"é", `subject LIKE '_'`, true},
		{"é", `subject LIKE '__'`, false},
		{"日本", `subject LIKE '_本'`, true},
		{"it's", `subject LIKE 'it\'s'`, true},
		{"ABC", `subject LIKE 'abc'`, false},
		{"x", `subject LIKE ''`, false},
		{"50% off", `(subject LIKE '50%off') AND NOT (subject LIKE 'x%' OR EXISTS absent)`, true},
		{"50% off", `LENGTH(subject) > 3 AND TRUE = (subject LIKE '%off')`, true},
		{"50% off", `subject LIKE '50%off' IN (FALSE, TRUE)`, true},
	} {
		w, err := ParseWhere(c.where)
		if err != nil {
			t.Errorf("%s: %v", c.where, err)
			continue
		}
		if got, err := w.Match(tckCase{Overrides: map[string]any{"subject": c.subject}}.event(t)); got != c.want || err != nil {
			t.Errorf("%s of %q is %v, %v", c.where, c.subject, got, err)
		}
	}
}

// Every short pattern says of every short text what the definition says.
func TestWhereLikeIsItsDefinition(t *testing.T) {
	t.Parallel()
	texts := []string{""}
	for from, n := 0, 0; n < 4; n++ {
		to := len(texts)
		for _, head := range texts[from:to] {
			for _, tail := range []string{"a", "é", "%", "_", `\`} {
				texts = append(texts, head+tail)
			}
		}
		from = to
	}
	for _, pattern := range texts {
		l := like{pattern: parseLike(pattern)}
		for _, text := range texts {
			if got, want := l.match(text), naiveLike(text, pattern); got != want {
				t.Fatalf("%q LIKE %q is %v, want %v", text, pattern, got, want)
			}
		}
	}
}

func naiveLike(text, pattern string) bool {
	if pattern == "" {
		return text == ""
	}
	_, size := utf8.DecodeRuneInString(text)
	switch {
	case pattern[0] == '%':
		return naiveLike(text, pattern[1:]) || text != "" && naiveLike(text[size:], pattern)
	case pattern[0] == '_':
		return text != "" && naiveLike(text[size:], pattern[1:])
	case strings.HasPrefix(pattern, `\%`), strings.HasPrefix(pattern, `\_`):
		pattern = pattern[1:]
	}
	_, step := utf8.DecodeRuneInString(pattern)
	return strings.HasPrefix(text, pattern[:step]) && naiveLike(text[size:], pattern[step:])
}
