package api

import (
	"errors"
	"net/http"
	"time"

	"sluice/bus"
	"sluice/sources"
)

// Schedule is one cron source of the config, and how far it is.
type Schedule struct {
	Name     string    `json:"name"`
	Schedule string    `json:"schedule"`
	Timezone string    `json:"timezone"`
	Start    string    `json:"start,omitempty"`
	End      string    `json:"end,omitempty"`
	CatchUp  string    `json:"catch_up"`
	Last     time.Time `json:"last,omitzero"` // the tick that fired last
	Next     time.Time `json:"next,omitzero"` // left out when there is none any more
	Dropped  int64     `json:"dropped"`       // late ticks that catch_up dropped, since the start
}

// ScheduleOf describes a cron source whose schedule is at ticks.
func ScheduleOf(name string, s *sources.Cron, ticks sources.Ticks, now time.Time) Schedule {
	d := Schedule{
		Name: name, Schedule: s.Schedule, Timezone: s.Timezone, Start: s.Start, End: s.End, CatchUp: s.CatchUp,
		Last: ticks.Last, Next: ticks.Next, Dropped: ticks.Dropped,
	}
	if times, err := s.Times(); err == nil && d.Next.IsZero() {
		if tick, ok := times.Next(now); ok {
			d.Next = tick.Time.UTC()
		}
	}
	return d
}

func (a *api) schedules() []Schedule {
	v := a.View()
	all := []Schedule{}
	for _, s := range v.Config.Sources {
		if c, ok := s.Settings.(*sources.Cron); ok {
			var ticks sources.Ticks
			if v.Ticks != nil {
				ticks, _ = v.Ticks(s.Name)
			}
			all = append(all, ScheduleOf(s.Name, c, ticks, a.now()))
		}
	}
	return all
}

func (a *api) listSchedules(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"schedules": a.schedules()})
}

// runSchedule fires a schedule now, beside its ticks.
func (a *api) runSchedule(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	known := false
	for _, s := range a.schedules() {
		known = known || s.Name == name
	}
	trigger := a.View().Trigger
	if !known || trigger == nil {
		return refuse(http.StatusNotFound, "there is no schedule %q: GET /api/v1/schedules lists them", name)
	}
	e, err := trigger(r.Context(), name)
	switch {
	case errors.Is(err, bus.ErrClosed):
		return refuse(http.StatusConflict, "the source %s does not run: resume it, or look at GET /api/v1/sources/%s", name, name)
	case err != nil:
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"schedule": name, "event": e})
}
