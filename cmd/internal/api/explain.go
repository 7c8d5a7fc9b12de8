package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	"sluice/bus/dispatch"
)

// explanation says why one rule does or does not match.
type explanation struct {
	Rule string `json:"rule"`
	dispatch.Explanation
}

// explain answers for one rule, or for all: those that match first, then the
// nearest misses.
func (a *api) explain(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Rule  string          `json:"rule"`
		Event json.RawMessage `json:"event"`
	}
	limit := int64(a.View().Config.Server.Limits.EventBytes) + requestBytes
	if err := decode(w, r, limit, &body); err != nil {
		return err
	}
	if len(orNone(body.Event)) == 0 {
		return refuse(http.StatusBadRequest, "event is missing: give the CloudEvent to explain, as JSON")
	}
	event, err := a.event(body.Event)
	if err != nil {
		return err
	}
	list := []explanation{}
	for _, rule := range a.Bus.Routes() {
		if body.Rule == "" || body.Rule == rule.Name {
			list = append(list, explanation{rule.Name, dispatch.Explain(rule, event)})
		}
	}
	if body.Rule != "" && len(list) == 0 {
		return refuse(http.StatusNotFound, "there is no rule %q in force: GET /api/v1/rules lists them", body.Rule)
	}
	slices.SortStableFunc(list, func(x, y explanation) int {
		switch {
		case x.Matched == y.Matched:
			return cmp.Compare(x.Missed, y.Missed)
		case x.Matched:
			return -1
		}
		return 1
	})
	return writeJSON(w, http.StatusOK, map[string]any{"explanations": list})
}
