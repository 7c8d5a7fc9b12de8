package rules

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// answer is one labelled case of testdata/answers.txt.
type answer struct {
	Line           int
	Want           bool
	Pattern, Event string
	Note           string
}

// answers reads testdata/answers.txt: "yes|no <tab> pattern <tab> event", with
// "#" lines that name what follows.
func answers(t testing.TB) []answer {
	t.Helper()
	f, err := os.Open("testdata/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []answer
	note := ""
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if rest, ok := strings.CutPrefix(line, "#"); ok || line == "" {
			note = strings.TrimSpace(rest)
			continue
		}
		parts := strings.Split(line, "\t")
		if len(parts) != 3 || parts[0] != "yes" && parts[0] != "no" {
			t.Fatalf("answers.txt:%d: want verdict, pattern and event separated by tabs", n)
		}
		list = append(list, answer{n, parts[0] == "yes", parts[1], parts[2], note})
	}
	return list
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	cases := answers(t)
	rs := make([]Rule, len(cases))
	for i, c := range cases {
		p, err := ParsePattern([]byte(c.Pattern))
		if err != nil {
			t.Fatalf("answers.txt:%d: %v", c.Line, err)
		}
		if !json.Valid([]byte(c.Event)) {
			t.Fatalf("answers.txt:%d: the event is not JSON", c.Line)
		}
		rs[i] = Rule{Name: c.Note, Pattern: p}
	}
	all := compile(t, rs)
	for i, c := range cases {
		alone := compile(t, rs[i:i+1])
		hits, err := alone.Match([]byte(c.Event), nil)
		if err != nil || (len(hits) == 1) != c.Want {
			t.Errorf("answers.txt:%d (%s): %s on %s: hits %v, error %v, want %v", c.Line, c.Note, c.Pattern, c.Event, hits, err, c.Want)
		}
		agreeWith(t, all, rs, []byte(c.Event))
	}
}
