package api

import (
	"errors"
	"net/http"
	"time"

	"sluice/bus"
	"sluice/rules"
)

type ruleAnswer struct {
	Name      string        `json:"name"`
	To        []string      `json:"to"`
	Pattern   rules.Pattern `json:"pattern"`
	Matches   int64         `json:"matches"`
	LastMatch time.Time     `json:"last_match,omitzero"`
}

func (a *api) listRules(w http.ResponseWriter, _ *http.Request) error {
	patterns := map[string]rules.Pattern{}
	for _, r := range a.Bus.Routes() {
		patterns[r.Name] = r.Pattern
	}
	list := []ruleAnswer{}
	for _, r := range a.Bus.Rules() {
		if pattern, ok := patterns[r.Name]; ok { // a reload may have come in between
			list = append(list, ruleAnswer{r.Name, r.To, pattern, r.Matches, r.LastMatch})
		}
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
	names, to, err := a.Bus.Match(event)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string][]string{"rules": orEmpty(names), "sinks": orEmpty(to)})
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

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
