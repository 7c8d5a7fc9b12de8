package api

import (
	"errors"
	"net/http"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/rules"
)

type ruleAnswer struct {
	Name      string        `json:"name"`
	To        []string      `json:"to"`
	Pattern   rules.Pattern `json:"pattern"`
	Where     string        `json:"where,omitempty"`
	Transform bool          `json:"transform,omitempty"`

	ConfigVersion string `json:"config_version,omitempty"` // of what the config says of it

	Matches   int64     `json:"matches"`
	LastMatch time.Time `json:"last_match,omitzero"`

	// Of the events that match the pattern.
	WhereRejections int64  `json:"where_rejections"` // where was false
	WhereErrors     int64  `json:"where_errors"`     // where had no answer
	LastWhereError  string `json:"last_where_error,omitempty"`
}

func (a *api) listRules(w http.ResponseWriter, _ *http.Request) error {
	routes := map[string]dispatch.Route{}
	for _, r := range a.Bus.Routes() {
		routes[r.Name] = r
	}
	cfg := a.View().Config
	list := []ruleAnswer{}
	for _, r := range a.Bus.Rules() {
		route, ok := routes[r.Name]
		if !ok { // a reload has come in between
			continue
		}
		list = append(list, ruleAnswer{
			Name: r.Name, To: r.To, Pattern: route.Pattern, Where: route.Where.String(), Transform: route.Transform != nil,
			ConfigVersion: cfg.EntryVersion("rules", r.Name),
			Matches:       r.Matches, LastMatch: r.LastMatch,
			WhereRejections: r.WhereRejections, WhereErrors: r.WhereErrors, LastWhereError: r.LastWhereError,
		})
	}
	return writeJSON(w, http.StatusOK, map[string]any{"rules": list})
}

func (a *api) match(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, int64(a.View().Config.Server.Limits.EventBytes))
	if err != nil {
		return err
	}
	event, err := a.event(body)
	if err != nil {
		return err
	}
	to, err := a.Bus.Match(event)
	if err != nil {
		return err
	}
	answer := map[string]any{"rules": to.Rules, "sinks": to.Sinks}
	if misses := showMisses(to.Misses); misses != nil {
		answer["where_misses"] = misses
	}
	return writeJSON(w, http.StatusOK, answer)
}

// event reads an event as the door would take it.
func (a *api) event(doc []byte) (bus.Event, error) {
	e, err := bus.ParseJSON(doc)
	var wrong *bus.AttributeError
	if errors.As(err, &wrong) {
		return e, refuse(http.StatusBadRequest, "the event is not valid: %s", wrong)
	}
	if err != nil {
		return e, refuse(http.StatusBadRequest, "the event is not a CloudEvent in JSON: %s", err)
	}
	return bus.Stamp(e, a.now()), nil
}

// whereMiss is a rule whose pattern matched, but whose where did not.
type whereMiss struct {
	Rule  string `json:"rule"`
	Error string `json:"error,omitempty"` // where had no answer
}

func showMisses(misses []dispatch.Miss) (shown []whereMiss) {
	for _, m := range misses {
		miss := whereMiss{Rule: m.Rule}
		if m.Err != nil {
			miss.Error = m.Err.Error()
		}
		shown = append(shown, miss)
	}
	return shown
}
