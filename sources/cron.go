package sources

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// Cron are the settings of the cron source.
type Cron struct {
	Schedule   string          `yaml:"schedule" doc:"When: cron(0 2 * * ? *) with the six fields of AWS, plain cron with five, rate(5 minutes), or at(2026-12-31T23:59:00). Each bus that has the schedule fires every tick, with the same id everywhere: where several hand them on to one bus with dedup, that stores each once."`
	Timezone   string          `yaml:"timezone" doc:"The time zone of the schedule, such as Europe/Berlin. A time that its clocks skip has no tick, one that they show twice has one."`
	CatchUp    string          `yaml:"catch_up" enum:"none,one,all" doc:"What becomes of ticks that are more than a minute late, because the bus was down or the clock jumped: nothing, the last of them fires, or all. Of the time in which a reload had taken the source out of the config none is late."`
	CatchUpMax int             `yaml:"catch_up_max" doc:"The most late ticks that catch_up: all fires: the last ones, the oldest of them first."`
	Jitter     value.Duration  `yaml:"jitter" doc:"Each tick is delayed by its own part of this, always the same for the same tick, and never up to the next: a flexible time window."`
	Start      string          `yaml:"start" doc:"No tick before this time: 2026-01-31T08:00:00 in the zone of the schedule, or with an offset. A rate counts from it."`
	End        string          `yaml:"end" doc:"No tick after this time."`
	Type       string          `yaml:"type" doc:"The type of the events."`
	Subject    string          `yaml:"subject" doc:"The subject of the events."`
	Data       json.RawMessage `yaml:"data" doc:"A mapping to add to the data of the events, beside schedule, scheduled, actual and trigger."`

	clock cronClock // the real one when zero
}

// NewCron returns the settings with their defaults.
func NewCron() *Cron {
	return &Cron{Timezone: "UTC", CatchUp: catchNone, CatchUpMax: 100, Type: "sluice.cron.tick"}
}

// What Cron.CatchUp says.
const (
	catchNone = "none"
	catchOne  = "one"
	catchAll  = "all"
)

// mostCatchUp bounds Cron.CatchUpMax: so many times are held in memory.
const mostCatchUp = 100_000

// Validate is Settings.Validate.
func (s *Cron) Validate() value.Faults {
	var faults value.Faults
	zone, err := loadZone(s.Timezone)
	if err != nil {
		faults.Add("timezone", "%s", err)
		zone = time.UTC
	}
	if s.Schedule == "" {
		faults.Add("schedule", "is missing: write one such as cron(0 2 * * ? *), 0 2 * * *, rate(5 minutes) or at(2026-12-31T23:59:00)")
	} else if _, err := parseTimes(s.Schedule, zone); err != nil {
		faults.Add("schedule", "%s", err)
	}
	start, err := moment(s.Start, zone)
	if err != nil {
		faults.Add("start", "%s", err)
	}
	end, err := moment(s.End, zone)
	if err != nil {
		faults.Add("end", "%s", err)
	}
	if !start.IsZero() && !end.IsZero() && end.Before(start) {
		faults.Add("end", "lies before start: there would be no tick")
	}
	if s.CatchUpMax < 1 || s.CatchUpMax > mostCatchUp {
		faults.Add("catch_up_max", "must be from 1 to %d, is %d", mostCatchUp, s.CatchUpMax)
	}
	if s.Jitter < 0 || time.Duration(s.Jitter) > 24*time.Hour {
		faults.Add("jitter", "must be from 0 to 24h, is %s", s.Jitter)
	}
	var bad *bus.AttributeError
	switch _, err := s.event("x", time.Now(), time.Now(), trigSchedule); {
	case errors.As(err, &bad) && (bad.Name == "type" || bad.Name == "subject"):
		faults.Add(bad.Name, "%s", bad.Msg)
	case err != nil:
		faults.Add("data", "%s", err)
	}
	return faults
}

// moment reads start or end; zero when there is none.
func moment(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return localIn(text, zone)
}

// Times is the schedule of valid settings.
func (s *Cron) Times() (*Schedule, error) {
	times, err := ParseSchedule(s.Schedule, s.Timezone)
	if err != nil {
		return nil, err
	}
	start, err := moment(s.Start, times.zone)
	if err != nil {
		return nil, err
	}
	end, err := moment(s.End, times.zone)
	if err != nil {
		return nil, err
	}
	times.bound(start, end)
	return times, nil
}

// Warnings is Warner.Warnings.
func (s *Cron) Warnings(now time.Time) value.Faults {
	times, err := s.Times()
	if err != nil {
		return nil // Validate says so
	}
	if _, ok := times.Next(now); ok {
		return nil
	}
	msg := "never fires: there is no such time"
	if last, ok := times.Next(time.Unix(0, 0)); ok {
		msg = "never fires again: the times it names are over"
		if _, more := times.Next(last.Time); !more {
			msg = "never fires again: it names " + last.Time.Format(time.RFC3339) + " alone, which is over"
		}
	}
	return value.Faults{{Key: "schedule", Msg: msg}}
}

// Open is Settings.Open.
func (s *Cron) Open(_ context.Context, env Env) (Source, error) {
	times, err := s.Times()
	if err != nil {
		return nil, err
	}
	clock := s.clock
	if clock.now == nil {
		clock = realClock()
	}
	return &cronSource{settings: s, env: env, times: times, clock: clock, ready: make(chan struct{})}, nil
}

// What made an event: trigger in its data.
const (
	trigSchedule = "schedule"
	trigCatchUp  = "catch_up"
	trigManual   = "manual"
)

// event is the event of a tick.
func (s *Cron) event(name string, scheduled, actual time.Time, trigger string) (bus.Event, error) {
	data, err := s.eventData(name, scheduled, actual, trigger)
	if err != nil {
		return bus.Event{}, err
	}
	attrs := []bus.Attr{
		{Name: "id", Value: tickID(name, scheduled, trigger)},
		{Name: "source", Value: "cron/" + name},
		{Name: "type", Value: s.Type},
		{Name: "time", Value: scheduled.UTC().Format(time.RFC3339Nano)},
		{Name: "datacontenttype", Value: "application/json"},
	}
	if s.Subject != "" {
		attrs = append(attrs, bus.Attr{Name: "subject", Value: s.Subject})
	}
	return bus.NewEvent(attrs, data)
}

// eventData is the user's mapping with ours before it. Its text stays as it is.
func (s *Cron) eventData(name string, scheduled, actual time.Time, trigger string) ([]byte, error) {
	data, err := json.Marshal(struct {
		Schedule  string    `json:"schedule"`
		Scheduled time.Time `json:"scheduled"`
		Actual    time.Time `json:"actual"`
		Trigger   string    `json:"trigger"`
	}{name, scheduled.UTC(), actual.UTC().Truncate(time.Millisecond), trigger})
	if err != nil || len(s.Data) == 0 {
		return data, err
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(s.Data, &own); err != nil || own == nil {
		return nil, errors.New("is no mapping: write one such as {report: weekly}")
	}
	for _, key := range []string{"schedule", "scheduled", "actual", "trigger"} {
		if _, taken := own[key]; taken {
			return nil, fmt.Errorf("has the key %s, which every tick has: choose another", key)
		}
	}
	if len(own) == 0 {
		return data, nil
	}
	inner := bytes.TrimSpace(s.Data)
	return append(append(data[:len(data)-1], ','), inner[1:]...), nil
}
