package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/bus"
	"sluice/bus/dispatch"
)

type deadLetter struct {
	ID            string          `json:"id"`
	DeliveryID    string          `json:"delivery_id"`
	Source        string          `json:"source,omitempty"` // of what a source rejected; it has no sink and no rule
	Sink          string          `json:"sink"`
	Rule          string          `json:"rule"`
	Reason        string          `json:"reason"`
	ConfigVersion string          `json:"config_version"`
	Accepted      time.Time       `json:"accepted"`
	Died          time.Time       `json:"died"`
	Attempts      []attempt       `json:"attempts"`
	Event         json.RawMessage `json:"event"`
}

type attempt struct {
	At              time.Time `json:"at"`
	DurationSeconds float64   `json:"duration_seconds"`
	Status          int       `json:"status,omitempty"`
	Class           string    `json:"class"`
	Error           string    `json:"error,omitempty"`
	Answer          string    `json:"answer,omitempty"`
	AnswerBase64    []byte    `json:"answer_base64,omitempty"` // one that is no text
}

func showDead(d *dispatch.DeadLetter) deadLetter {
	shown := deadLetter{
		ID: d.ID, DeliveryID: d.DeliveryID, Source: d.Source, Sink: d.Sink, Rule: d.Rule, Reason: d.Reason, ConfigVersion: d.Config,
		Accepted: d.Accepted, Died: d.Died, Attempts: []attempt{}, Event: eventJSON(d.Event),
	}
	for _, at := range d.Attempts {
		one := attempt{At: at.At, DurationSeconds: seconds(at.Duration), Status: at.Status, Class: at.Class, Error: at.Error}
		if utf8.Valid(at.Answer) {
			one.Answer = string(at.Answer)
		} else {
			one.AnswerBase64 = at.Answer
		}
		shown.Attempts = append(shown.Attempts, one)
	}
	return shown
}

// weight is about how large a dead letter is when it is shown.
func (d *deadLetter) weight() int {
	size := len(d.Event)
	for i := range d.Attempts {
		at := &d.Attempts[i]
		size += 128 + len(at.Error) + len(at.Answer) + len(at.AnswerBase64)
	}
	return size
}

func eventJSON(e bus.Event) json.RawMessage { return e.AppendJSON(make([]byte, 0, e.Size()+64)) }

// deadFilter is how dead letters are chosen, in a query and in a body.
type deadFilter struct {
	Source  string          `json:"source"` // the source that rejected it
	Sink    string          `json:"sink"`
	Rule    string          `json:"rule"`
	Reason  string          `json:"reason"`
	Since   string          `json:"since"`
	Until   string          `json:"until"`
	Pattern json.RawMessage `json:"pattern"`
	IDs     []string        `json:"ids"`
}

func (f *deadFilter) empty() bool {
	return f.Source == "" && f.Sink == "" && f.Rule == "" && f.Reason == "" && f.Since == "" && f.Until == "" &&
		len(orNone(f.Pattern)) == 0 && len(f.IDs) == 0
}

// choice is the filter checked, in the form of a redrive, which has one too.
func (a *api) choice(f deadFilter) (dispatch.Redrive, error) {
	since, until, err := a.span(f.Since, f.Until)
	if err != nil {
		return dispatch.Redrive{}, err
	}
	if reasons := dispatch.DeadLetterReasons(); f.Reason != "" && !slices.Contains(reasons, f.Reason) {
		return dispatch.Redrive{}, refuse(http.StatusBadRequest, "reason: there is no %q: there are %s", f.Reason, strings.Join(reasons, ", "))
	}
	for _, id := range f.IDs {
		if _, err := bus.ParsePosition(id); err != nil {
			return dispatch.Redrive{}, refuse(http.StatusBadRequest, "ids: %q is not the id of a dead letter, such as 1042.7", id)
		}
	}
	return dispatch.Redrive{
		Source: f.Source, Sink: f.Sink, Rule: f.Rule, Reason: f.Reason, Since: since, Until: until, Pattern: orNone(f.Pattern), IDs: f.IDs,
	}, nil
}

func (a *api) listDeadLetters(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "source", "sink", "rule", "reason", "since", "until", "pattern", "id", "limit", "from")
	if err != nil {
		return err
	}
	limit, err := q.limit()
	if err != nil {
		return err
	}
	from, err := q.from()
	if err != nil {
		return err
	}
	choice, err := a.choice(deadFilter{
		Source: q.Get("source"), Sink: q.Get("sink"), Rule: q.Get("rule"), Reason: q.Get("reason"), Since: q.Get("since"), Until: q.Get("until"),
		Pattern: json.RawMessage(q.Get("pattern")), IDs: q.Values["id"],
	})
	if err != nil {
		return err
	}
	filter, err := choice.Filter()
	if err != nil {
		return err
	}
	// A few at a time: a thousand of the largest would not fit in memory.
	const step = 16
	list, size := []deadLetter{}, 0
	for len(list) < limit && size < answerBytes {
		some, next, err := a.Bus.DeadLetters(r.Context(), filter, from, min(step, limit-len(list)))
		if err != nil {
			return err
		}
		for i := range some {
			list = append(list, showDead(&some[i]))
			size += list[len(list)-1].weight()
		}
		if from = next; next == (bus.Position{}) {
			break
		}
	}
	return writeJSON(w, http.StatusOK, page("dead_letters", list, from))
}

// page is a list with the place where it goes on, if it does.
func page[T any](name string, list []T, next bus.Position) map[string]any {
	answer := map[string]any{name: list}
	if next != (bus.Position{}) {
		answer["next"] = next.String()
	}
	return answer
}

func (a *api) showDeadLetter(w http.ResponseWriter, r *http.Request) error {
	letter, err := a.Bus.DeadLetter(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, showDead(&letter))
}

func (a *api) purge(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		deadFilter
		All bool `json:"all"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if body.empty() != body.All {
		return refuse(http.StatusBadRequest, "say either which dead letters to remove, or all: true for all of them")
	}
	choice, err := a.choice(body.deadFilter)
	if err != nil {
		return err
	}
	filter, err := choice.Filter()
	if err != nil {
		return err
	}
	removed, err := a.Bus.PurgeDeadLetters(r.Context(), filter)
	if err != nil {
		return err
	}
	a.Log.Info("dead letters purged", "source", body.Source, "sink", body.Sink, "rule", body.Rule, "reason", body.Reason, "removed", removed)
	return writeJSON(w, http.StatusOK, map[string]int{"removed": removed})
}

func (a *api) redrive(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		deadFilter
		To      string  `json:"to"`
		Reroute bool    `json:"reroute"`
		Rate    float64 `json:"rate"`
		Limit   int     `json:"limit"`
		Canary  int     `json:"canary"`
		DryRun  bool    `json:"dry_run"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	choice, err := a.choice(body.deadFilter)
	if err != nil {
		return err
	}
	switch {
	case body.To != "" && body.Reroute:
		return refuse(http.StatusBadRequest, "a redrive goes either to a sink or to where the rules say: give to or reroute, not both")
	case body.Rate < 0 || body.Limit < 0 || body.Canary < 0:
		return refuse(http.StatusBadRequest, "rate, limit and canary cannot be negative: leave out what does not matter")
	case body.To != "":
		if err := a.known(body.To); err != nil {
			return err
		}
	}
	choice.To, choice.Reroute, choice.Rate = body.To, body.Reroute, body.Rate
	choice.Limit, choice.Canary, choice.DryRun = body.Limit, body.Canary, body.DryRun
	if body.Source != "" {
		return refuse(http.StatusBadRequest, "what source %s rejected is no event: it cannot be redriven; mend what sends it, and send it again", body.Source)
	}
	job, err := a.Bus.Redrive(r.Context(), choice)
	if err != nil {
		return err
	}
	return accepted(w, job)
}
