package rules

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

type badPattern struct {
	pattern string
	offset  int
	path    string
	msg     string // part of the message
}

func badPatterns() []badPattern {
	return []badPattern{
		{``, 0, "", "a pattern is a JSON object"},
		{`[]`, 0, "", "found an array"},
		{`{}`, 1, "", "empty object"},
		{`{"a":{}}`, 6, "a", "empty object"},
		{`{"a":[]}`, 6, "a", "empty array"},
		{`{"a":"x"}`, 5, "a", "put it in [ ]"},
		{`{"a":["x"]`, 10, "a", "end of the pattern"},
		{`{"a":["x"]} x`, 12, "", `found "x"`},
		{`{"a":["x",]}`, 10, "a", "trailing comma"},
		{`{"a":["x" "y"]}`, 10, "a", "expected \",\""},
		{`{"a":[["x"]]}`, 6, "a", "side by side"},
		{`{"a":["x],"b":1}`, 11, "a", "expected"},
		{`{"a":["x]}`, 6, "a", "no closing quote"},
		{`{"a":["\q"]}`, 6, "a", "escape"},
		{`{"a":[01]}`, 7, "a", "expected"},
		{`{"a":[-]}`, 6, "a", "not a number"},
		{`{"a":["x"],"a":["y"]}`, 11, "a", "twice"},
		{`{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1],"e":[1]}`, 49, "e", "twice"},
		{`{"a":{"b":["x"]},"a.b":["y"]}`, 17, "a.b", "twice"},
		{`{"a":{"b":{"prefix":"x"}}}`, 11, "a.b.prefix", `"b": [{"prefix": …}]`},
		{`{"a":[{"prefx":"x"}]}`, 7, "a", `did you mean "prefix"?`},
		{`{"a":[{"equalsIgnoreCase":"x"}]}`, 7, "a", `"equals-ignore-case"`},
		{`{"a":[{"contains":"x"}]}`, 7, "a", "wildcard"},
		{`{"a":[{"regex":"x"}]}`, 7, "a", "no regular expressions"},
		{`{"a":[{"zzzzzzzzzz":"x"}]}`, 7, "a", "anything-but, cidr"},
		{`{"a":[{}]}`, 7, "a", "empty operator"},
		{`{"a":[{"prefix":"x","suffix":"y"}]}`, 19, "a", "only one operator"},
		{`{"a":[{"prefix":5}]}`, 16, "a", "expected a string"},
		{`{"a":[{"prefix":{"suffix":"x"}}]}`, 17, "a", "equals-ignore-case"},
		{`{"a":[{"wildcard":"a**b"}]}`, 18, "a", "**"},
		{`{"a":[{"wildcard":"a\\b"}]}`, 18, "a", "backslash"},
		{`{"a":[{"wildcard":"a\\"}]}`, 18, "a", "backslash"},
		{`{"a":[{"exists":1}]}`, 16, "a", "true or false"},
		{`{"a":[{"anything-but":true}]}`, 22, "a", "strings and numbers"},
		{`{"a":[{"anything-but":null}]}`, 22, "a", "strings and numbers"},
		{`{"a":[{"anything-but":["x",5]}]}`, 27, "a", "mixes"},
		{`{"a":[{"anything-but":[]}]}`, 23, "a", "empty list"},
		{`{"a":[{"anything-but":{"prefix":""}}]}`, 32, "a", "empty prefix"},
		{`{"a":[{"anything-but":{"prefix":5}}]}`, 32, "a", "only strings"},
		{`{"a":[{"anything-but":{"numeric":5}}]}`, 23, "a", "only prefix, suffix"},
		{`{"a":[{"anything-but":9007199254740993}]}`, 22, "a", "more digits"},
		{`{"a":[{"numeric":5}]}`, 17, "a", "takes an array"},
		{`{"a":[{"numeric":["~",5]}]}`, 18, "a", "knows"},
		{`{"a":[{"numeric":["<","5"]}]}`, 22, "a", "needs a number"},
		{`{"a":[{"numeric":[">",1e400]}]}`, 22, "a", "more digits"},
		{`{"a":[{"numeric":["<",5,">",1]}]}`, 24, "a", "lower one first"},
		{`{"a":[{"numeric":["=",5,"<",6]}]}`, 24, "a", "lower one first"},
		{`{"a":[{"numeric":[">=",5,"<=",5]}]}`, 18, "a", "not below"},
		{`{"a":[{"numeric":[">",6,"<",5]}]}`, 18, "a", "not below"},
		{`{"a":[{"numeric":[">",1,">",5]}]}`, 24, "a", "after a lower bound"},
		{`{"a":[{"numeric":[">",1,"<",5,"<",6]}]}`, 30, "a", "at most"},
		{`{"a":[{"cidr":"10.0.0.0"}]}`, 14, "a", "prefix length"},
		{`{"a":[{"cidr":"10.0.0.0/33"}]}`, 14, "a", "0 to 32"},
		{`{"a":[{"cidr":"::/129"}]}`, 14, "a", "0 to 128"},
		{`{"a":[{"cidr":"10.0.0/8"}]}`, 14, "a", "IP address"},
		{`{"$or":{"a":["x"]}}`, 7, "$or", "at least two"},
		{`{"$or":[]}`, 7, "$or", "at least two"},
		{`{"$or":[{"a":["x"]}]}`, 7, "$or", "at least two"},
		{`{"$or":["a","b"]}`, 8, "$or", "takes objects"},
		{`{"$or":[{"prefix":["x"]},{"b":[1]}]}`, 9, "prefix", "operator"},
		{"{\"a\":[\"\x01\"]}", 7, "a", "control character"},
		{"{\"a\":[\"\xff\"]}", 7, "", "UTF-8"},
		{`{"a":[` + strings.Repeat("1,", 10_000) + `1]}`, 20006, "a", "more than 10000 values"},
		{strings.Repeat(`{"a":`, 101) + `[1]` + strings.Repeat(`}`, 101), 500, strings.Repeat("a.", 99) + "a", "deeper than 100"},
		{`{"a":[{"wildcard":"` + strings.Repeat("*x", 33) + `"}]}`, 18, "a", "at most 32"},
		{`{"a":[` + strings.Repeat(`{"wildcard":"*x"},`, 1000) + `{"wildcard":"*x"}]}`, 18018, "a", "more than 1000 wildcards"},
		{`{"` + strings.Repeat("a.", 100) + `a":[1]}`, 1, strings.Repeat("a.", 100) + "a", "more than 100 steps"},
		{`{"a":[` + strings.Repeat("1", 1025) + `]}`, 6, "a", "more than 1024 characters"},
		{`{"a":["` + strings.Repeat("x", 256<<10) + `"]}`, 0, "", "at most 262144"},
	}
}

func TestParsePatternErrors(t *testing.T) {
	t.Parallel()
	for _, c := range badPatterns() {
		_, err := ParsePattern([]byte(c.pattern))
		var pe *PatternError
		if !errors.As(err, &pe) {
			t.Errorf("%.80s: error %v, want a PatternError", c.pattern, err)
			continue
		}
		if pe.Offset != c.offset || pe.Path != c.path || !strings.Contains(pe.Msg, c.msg) {
			t.Errorf("%.80s:\n got %d %q %s\nwant %d %q …%s…", c.pattern, pe.Offset, pe.Path, pe.Msg, c.offset, c.path, c.msg)
		}
	}
}

func TestPatternKeepsItsText(t *testing.T) {
	t.Parallel()
	src := `{ "a": [5.0, 1e400, {"numeric": [">", 0.50]}] }`
	p, err := ParsePattern([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	if p.String() != src {
		t.Errorf("String() = %s", p)
	}
	b, err := json.Marshal(p)
	if err != nil || string(b) != `{"a":[5.0,1e400,{"numeric":["\u003e",0.50]}]}` {
		t.Errorf("Marshal = %s, %v", b, err)
	}
	var q Pattern
	if err := json.Unmarshal(b, &q); err != nil || q.String() != string(b) {
		t.Errorf("Unmarshal = %s, %v", q, err)
	}
	if _, err := json.Marshal(Pattern{}); err == nil {
		t.Error("the zero Pattern has no JSON form")
	}
	if _, err := Compile([]Rule{{Name: "zero"}}); err == nil || !strings.Contains(err.Error(), "zero") {
		t.Errorf("Compile(zero) = %v", err)
	}
}
