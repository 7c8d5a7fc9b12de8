package dispatch

import (
	"fmt"

	"sluice/bus"
	"sluice/rules"
)

// Explanation says why a rule does or does not match one event: its pattern key by
// key, and its where.
type Explanation struct {
	rules.Explanation
	Where *WhereExplanation `json:"where,omitempty"` // nil for a rule without one
}

// WhereExplanation is what became of a rule's where.
type WhereExplanation struct {
	Expression string `json:"expression"`
	Verdict    string `json:"verdict"`         // one of the Where constants
	Error      string `json:"error,omitempty"` // with WhereError
}

// What becomes of a where.
const (
	WhereTrue    = "true"
	WhereFalse   = "false"
	WhereError   = "error"         // it has no answer, which counts as false
	WhereUnasked = "not evaluated" // the pattern does not match
)

// Explain says why a rule does or does not match an event.
func Explain(r Route, e bus.Event) Explanation {
	x := Explanation{Explanation: rules.ExplainEvent(r.Pattern, e)}
	if r.Where == nil {
		return x
	}
	w := &WhereExplanation{Expression: r.Where.String(), Verdict: WhereUnasked}
	x.Where = w
	if !x.Matched {
		return x
	}
	ok, err := r.Where.Match(e.CloudEvent())
	switch {
	case err != nil:
		w.Verdict, w.Error = WhereError, err.Error()
		x.Reason = "the pattern is fulfilled, but where has no answer: " + w.Error
	case !ok:
		w.Verdict = WhereFalse
		x.Reason = "the pattern is fulfilled, but where is false"
	default:
		w.Verdict = WhereTrue
		x.Reason += ", and where is true"
	}
	if x.Matched = ok; !ok {
		x.Missed = 1
	}
	return x
}

// String is the explanation for people: a line for each key, and one for where.
func (x Explanation) String() string {
	text := x.Explanation.String()
	if x.Where == nil {
		return text
	}
	mark := "✗"
	if x.Where.Verdict == WhereTrue {
		mark = "✓"
	}
	line := fmt.Sprintf("  %s where %s: %s", mark, x.Where.Expression, x.Where.Verdict)
	if x.Where.Error != "" {
		line += ": " + x.Where.Error
	}
	return text + line + "\n"
}
