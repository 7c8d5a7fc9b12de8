package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// load reads the config and checks it as a whole: its values, the address that a
// flag gave, and its tests.
func (a *App) load() (*config.Config, error) {
	cfg := a.opts.Config
	if a.opts.Path != "" {
		var err error
		if cfg, err = config.Load(a.opts.Path, a.opts.Kinds); err != nil {
			return nil, &InvalidConfig{err}
		}
	}
	if cfg == nil {
		return nil, errors.New("app: neither a config nor the path of one was given")
	}
	server := cfg.Server
	server.Listen = a.listenOn(cfg)
	if faults := server.Validate(); len(faults) > 0 {
		return nil, &InvalidConfig{fmt.Errorf("server.%s: %s", faults[0].Key, faults[0].Msg)}
	}
	if failures := RunTests(cfg); len(failures) > 0 {
		return nil, &InvalidConfig{failures}
	}
	return cfg, nil
}

// Routes are the rules of a config that are in force.
func Routes(cfg *config.Config) []dispatch.Route {
	var routes []dispatch.Route
	for _, r := range cfg.Rules {
		if r.Enabled {
			routes = append(routes, r.Route())
		}
	}
	return routes
}

// TestFailure is a test of a config that did not come out as written.
type TestFailure struct {
	Pos  config.Pos `json:"-"`
	Name string     `json:"name"`
	Msg  string     `json:"message"`
}

// String is file:line:col: name: message.
func (f TestFailure) String() string { return f.Pos.String() + ": " + f.Name + ": " + f.Msg }

// TestFailures are the tests that failed, as an error.
type TestFailures []TestFailure

// Error is one line for each failure.
func (f TestFailures) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// RunTests runs the tests of a config against its rules.
func RunTests(cfg *config.Config) TestFailures {
	routes := Routes(cfg)
	matcher, err := dispatch.NewMatcher(routes)
	if err != nil {
		return TestFailures{{Name: "rules", Msg: err.Error()}}
	}
	var failures TestFailures
	for i, t := range cfg.Tests {
		if msg := runTest(cfg, matcher, t); msg != "" {
			name := fmt.Sprintf("tests[%d]", i)
			if t.Name != "" {
				name += " (" + t.Name + ")"
			}
			failures = append(failures, TestFailure{t.Pos, name, msg})
		}
	}
	return failures
}

// runTest says how a test fails, or "".
func runTest(cfg *config.Config, matcher *dispatch.Matcher, t config.Test) string {
	event, err := testEvent(t.Event)
	if err != nil {
		return "the event is not valid: " + err.Error()
	}
	to, err := matcher.Route(event, cfg.Unmatched)
	if err != nil {
		return err.Error()
	}
	got := map[string]bool{}
	for _, sink := range to.Sinks {
		got[sink] = true
	}
	var missing, extra []string
	for _, want := range t.Expect {
		if !got[want] {
			missing = append(missing, want)
		}
		delete(got, want)
	}
	for sink := range got {
		extra = append(extra, sink)
	}
	slices.Sort(extra)
	return verdict(missing, extra, to)
}

func verdict(missing, extra []string, to dispatch.Routed) string {
	if len(missing)+len(extra) == 0 {
		return ""
	}
	var parts []string
	if len(missing) > 0 {
		parts = append(parts, "the event does not go to "+strings.Join(missing, ", "))
	}
	if len(extra) > 0 {
		parts = append(parts, "the event goes to "+strings.Join(extra, ", ")+" too")
	}
	by := "no rule matches it"
	if len(to.Rules) > 0 {
		by = "the rules that match it: " + strings.Join(to.Rules, ", ")
	}
	for _, m := range to.Misses {
		if by += "; where of " + m.Rule + " is false"; m.Err != nil {
			by += ": " + m.Err.Error()
		}
	}
	return strings.Join(parts, ", and ") + "; " + by
}

// testEvent reads the event of a test, which may leave out what says nothing about
// where it goes: specversion, id and time.
func testEvent(doc []byte) (bus.Event, error) {
	for _, standard := range []struct{ name, value string }{{"specversion", bus.SpecVersion}, {"id", "test"}} {
		if gjson.GetBytes(doc, standard.name).Exists() {
			continue
		}
		var err error
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
