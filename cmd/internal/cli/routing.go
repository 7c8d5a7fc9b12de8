package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// loadConfig reads a config for a verb that needs one without faults.
func (e *env) loadConfig(path string) (*config.Config, error) {
	if path == "" {
		return nil, usagef("--config is missing: name the config, a file or a directory")
	}
	c, err := config.Load(path, e.kinds)
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, fault := range faults {
			fmt.Fprintln(e.stderr, fault)
		}
		return nil, &exitError{exitInvalid, fmt.Errorf("%s is not valid: mend the %s above", path, plural(len(faults), "fault"))}
	}
	return c, err
}

// routing is where a config sends events.
type routing struct {
	rules     []config.Rule // the enabled ones
	matcher   *dispatch.Matcher
	unmatched []string
}

func newRouting(c *config.Config) (*routing, error) {
	r := &routing{unmatched: c.Unmatched}
	var routes []dispatch.Route
	for _, rule := range c.Rules {
		if rule.Enabled {
			r.rules = append(r.rules, rule)
			routes = append(routes, rule.Route())
		}
	}
	var err error
	r.matcher, err = dispatch.NewMatcher(routes)
	return r, err
}

func (r *routing) route(e bus.Event) (dispatch.Routed, error) {
	return r.matcher.Route(e, r.unmatched)
}

// outcome is how one test of a config went.
type outcome struct {
	Name       string   `json:"name"`
	Place      string   `json:"place"`
	OK         bool     `json:"ok"`
	Error      string   `json:"error,omitempty"` // the event cannot be used
	Expect     []string `json:"expect"`
	Got        []string `json:"got"`
	Missing    []string `json:"missing,omitempty"`
	Unexpected []string `json:"unexpected,omitempty"`
	Rules      []string `json:"rules"` // the rules that matched

	event bus.Event
}

// runTests sends every test of a config through its rules.
func (r *routing) runTests(c *config.Config) []outcome {
	outcomes := make([]outcome, len(c.Tests))
	for i, test := range c.Tests {
		outcomes[i] = r.test(i, test)
	}
	return outcomes
}

func (r *routing) test(i int, test config.Test) outcome {
	o := outcome{Name: test.Name, Place: test.Pos.String(), Expect: test.Expect, Got: []string{}, Rules: []string{}}
	if o.Name == "" {
		o.Name = fmt.Sprintf("tests[%d]", i)
	}
	if o.Expect == nil {
		o.Expect = []string{}
	}
	var to dispatch.Routed
	var err error
	if o.event, err = testEvent(test.Event); err == nil {
		to, err = r.route(o.event)
	}
	if err != nil {
		o.Error = "event: " + err.Error()
		return o
	}
	o.Got, o.Rules = to.Sinks, to.Rules
	o.Missing, o.Unexpected = without(o.Expect, o.Got), without(o.Got, o.Expect)
	o.OK = len(o.Missing)+len(o.Unexpected) == 0
	return o
}

// testEvent reads the event of a test, which may leave out what says nothing about
// where it goes: specversion, id and time.
func testEvent(doc []byte) (bus.Event, error) {
	for _, standard := range []struct{ name, value string }{{"specversion", bus.SpecVersion}, {"id", "test"}} {
		if gjson.GetBytes(doc, standard.name).Exists() {
			continue
		}
		var err error
		// The rest of the document stays as it was written, numbers included.
		if doc, err = sjson.SetBytes(doc, standard.name, standard.value); err != nil {
			return bus.Event{}, err
		}
	}
	e, err := bus.ParseJSON(doc)
	if err != nil {
		return e, err
	}
	return bus.Stamp(e, time.Now()), nil
}

// without is what a has and b has not.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func failures(outcomes []outcome) int {
	n := 0
	for _, o := range outcomes {
		if !o.OK {
			n++
		}
	}
	return n
}
