package api

import (
	"encoding/json"
	"net/http"

	"sluice/bus/dispatch"
)

func (a *api) listJobs(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"jobs": a.Bus.Jobs()})
}

func (a *api) showJob(w http.ResponseWriter, r *http.Request) error {
	job, err := a.Bus.Job(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, job)
}

// cancelJob answers at once: the job may still be running for a moment.
func (a *api) cancelJob(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	if err := a.Bus.CancelJob(r.PathValue("id")); err != nil {
		return err
	}
	return a.showJob(w, r)
}

// accepted answers with a job that has begun.
func accepted(w http.ResponseWriter, job dispatch.Job) error {
	w.Header().Set("Location", "/api/v1/jobs/"+job.ID)
	return writeJSON(w, http.StatusAccepted, job)
}

type replayRequest struct {
	Since   string          `json:"since"`
	Until   string          `json:"until"`
	Pattern json.RawMessage `json:"pattern"`
	Sinks   []string        `json:"sinks"`
	Rate    float64         `json:"rate"`
	DryRun  bool            `json:"dry_run"`
}

func (a *api) replay(w http.ResponseWriter, r *http.Request) error {
	var body replayRequest
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	since, until, err := a.span(body.Since, body.Until)
	if err != nil {
		return err
	}
	if body.Rate < 0 {
		return refuse(http.StatusBadRequest, "rate is negative: give deliveries a second, or leave it out")
	}
	for _, sink := range body.Sinks {
		if err := a.known(sink); err != nil {
			return err
		}
	}
	job, err := a.Bus.Replay(r.Context(), dispatch.Replay{
		Since: since, Until: until, Pattern: orNone(body.Pattern), Sinks: body.Sinks, Rate: body.Rate, DryRun: body.DryRun,
	})
	if err != nil {
		return err
	}
	return accepted(w, job)
}

// orNone takes the JSON null for no pattern.
func orNone(pattern json.RawMessage) json.RawMessage {
	if string(pattern) == "null" {
		return nil
	}
	return pattern
}
