package sources

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule is a schedule in its time zone: cron(...) with the six fields of AWS,
// plain cron with five, rate(...) or at(...).
//
// Cron and at name what a clock on the wall shows. A time that the clock skips when
// it goes forward has no tick; one that it shows twice when it goes back has one,
// the first. A rate counts elapsed time from start, or else from 1970-01-01 UTC, so
// that all nodes agree, and does not know about zones.
type Schedule struct {
	zone       *time.Location
	times      cronTimes
	start, end time.Time // the first and the last moment that may have a tick; zero for none
}

// cronTimes are the times of a schedule.
type cronTimes interface {
	// after is the first time after a moment, or zero. It tells skipped, which may
	// be nil, of the wall clock readings in between that there are not.
	after(t time.Time, skipped func(wall time.Time)) time.Time
}

// Tick is a moment of a schedule.
type Tick struct {
	Time time.Time // in the zone of the schedule
	// Skipped are the readings of the clock on the wall that the schedule names and
	// that the clock skipped since the tick before, as times in UTC.
	Skipped []time.Time
	// Again says that the clock shows this time twice; the tick is at the first.
	Again bool
}

// localTime is how at, start and end are written.
const localTime = "2006-01-02T15:04:05"

// ParseSchedule reads a schedule; the zone is a name such as Europe/Berlin. What is
// wrong with the expression is a *CronError.
func ParseSchedule(expression, zone string) (*Schedule, error) {
	loc, err := loadZone(zone)
	if err != nil {
		return nil, err
	}
	s := &Schedule{zone: loc}
	if s.times, err = parseTimes(expression, loc); err != nil {
		return nil, err
	}
	return s, nil
}

// loadZone refuses Local: it is another zone on another machine.
func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("%s is not a time zone: write a name of the IANA database such as Europe/Berlin, or UTC", quoted(name))
	}
	return loc, nil
}

func parseTimes(expression string, loc *time.Location) (cronTimes, error) {
	if len(expression) > maxExpression {
		return nil, &CronError{Msg: fmt.Sprintf("is longer than %d bytes, which no schedule needs", maxExpression)}
	}
	text := strings.TrimSpace(expression)
	at := strings.Index(expression, text)
	if strings.HasPrefix(text, "@") {
		return nil, &CronError{Offset: at, Msg: quoted(text) + " is not understood: write five fields such as 0 0 * * * for every day, or rate(1 day)"}
	}
	name, rest, call := strings.Cut(text, "(")
	if !call {
		expr, err := parseCron(text, at, false)
		if err != nil {
			return nil, err
		}
		return &wallTimes{expr, loc}, nil
	}
	inner, closed := strings.CutSuffix(rest, ")")
	at += len(name) + 1
	if !closed {
		return nil, &CronError{Offset: at + len(rest), Msg: "the closing ) is missing: write one such as cron(0 2 * * ? *)"}
	}
	switch name {
	case "cron":
		expr, err := parseCron(inner, at, true)
		if err != nil {
			return nil, err
		}
		return &wallTimes{expr, loc}, nil
	case "rate":
		return parseRate(inner, at)
	case "at":
		return parseAt(inner, at, loc)
	}
	return nil, &CronError{Msg: quoted(name) + " is no kind of schedule: write cron(0 2 * * ? *), rate(5 minutes) or at(2026-12-31T23:59:00)"}
}

// wallTimes are those of a cron expression in a zone.
type wallTimes struct {
	expr *cronExpr
	zone *time.Location
}

func (w *wallTimes) after(t time.Time, skipped func(time.Time)) time.Time {
	wall := wallOf(t, w.zone).Truncate(time.Minute)
	for {
		next, ok := w.expr.next(wall)
		if !ok {
			return time.Time{}
		}
		// What the clock shows for the second time is not after t.
		switch m, exists := onWall(next, w.zone); {
		case exists && m.After(t):
			return m
		case !exists && skipped != nil:
			skipped(next)
		}
		wall = next.Add(time.Minute)
	}
}

// wallOf is what the clock on the wall shows, as a time in UTC.
func wallOf(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	_, offset := t.Zone()
	return t.Add(time.Duration(offset) * time.Second).UTC()
}

// onWall is the first moment at which the clock on the wall of a zone shows a
// time; false when it never does.
func onWall(wall time.Time, zone *time.Location) (time.Time, bool) {
	year, month, day := wall.Date()
	// Around a change of the clock this is one of the two moments, or neither.
	t := time.Date(year, month, day, wall.Hour(), wall.Minute(), wall.Second(), 0, zone)
	since, until := t.ZoneBounds()
	best := time.Time{}
	for _, near := range []time.Time{t, since.Add(-time.Second), until} {
		if near.IsZero() || near.Before(t.AddDate(0, 0, -2)) || near.After(t.AddDate(0, 0, 2)) {
			continue
		}
		_, offset := near.In(zone).Zone()
		m := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if wallOf(m, zone).Equal(wall) && (best.IsZero() || m.Before(best)) {
			best = m
		}
	}
	return best, !best.IsZero()
}

// twice says that the clock shows the time of a moment once more later.
func twice(t time.Time, zone *time.Location) bool {
	_, until := t.In(zone).ZoneBounds()
	if until.IsZero() {
		return false
	}
	_, before := t.In(zone).Zone()
	_, after := until.In(zone).Zone()
	return !t.Add(time.Duration(before-after) * time.Second).Before(until)
}

// rateTimes are those of rate(...).
type rateTimes struct {
	every  int64     // seconds
	anchor time.Time // the first, or zero for all multiples since 1970
}

func (r *rateTimes) after(t time.Time, _ func(time.Time)) time.Time {
	from := r.anchor
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	if t.Before(from) {
		return from
	}
	elapsed := t.Unix() - from.Unix()
	if t.Nanosecond() < from.Nanosecond() {
		elapsed--
	}
	return time.Unix(from.Unix()+(elapsed/r.every+1)*r.every, int64(from.Nanosecond()))
}

// longestRate is more than a year, and far from what overflows.
const longestRate = 10 * 366 * 24 * 60 * 60

func parseRate(text string, at int) (*rateTimes, error) {
	fail := func(at int, format string, args ...any) error {
		return &CronError{at, "rate", fmt.Sprintf(format, args...)}
	}
	parts := words(text, at)
	if len(parts) != 2 {
		return nil, fail(at, "wants a number and a unit: write one such as rate(5 minutes)")
	}
	n, ok := int64(0), len(parts[0].text) <= 9
	for _, c := range parts[0].text {
		ok = ok && c >= '0' && c <= '9'
		n = 10*n + int64(c-'0')
	}
	if !ok || n < 1 {
		return nil, fail(parts[0].at, "%s is not a number from 1 on: write one such as rate(5 minutes)", quoted(parts[0].text))
	}
	names := []string{"second", "minute", "hour", "day"}
	unit := parts[1].text
	i := slices.Index(names, strings.TrimSuffix(unit, "s"))
	if i < 0 {
		return nil, fail(parts[1].at, "%s is not a unit: write second(s), minute(s), hour(s) or day(s), as in rate(5 minutes)", quoted(unit))
	}
	want := names[i]
	if n != 1 {
		want += "s"
	}
	if unit != want {
		return nil, fail(parts[1].at, "%d goes with %q: write rate(%d %s)", n, want, n, want)
	}
	if n *= []int64{1, 60, 60 * 60, 24 * 60 * 60}[i]; n > longestRate {
		return nil, fail(parts[0].at, "is longer than ten years: write a shorter one, or at(...) for a single time")
	}
	return &rateTimes{every: n}, nil
}

// atTime is that of at(...).
type atTime struct{ time time.Time }

func (a *atTime) after(t time.Time, _ func(time.Time)) time.Time {
	if a.time.After(t) {
		return a.time
	}
	return time.Time{}
}

func parseAt(text string, at int, zone *time.Location) (*atTime, error) {
	t, err := localIn(strings.TrimSpace(text), zone)
	if err != nil {
		return nil, &CronError{at, "at", err.Error()}
	}
	return &atTime{t}, nil
}

// localIn reads a time of the clock on the wall.
func localIn(text string, zone *time.Location) (time.Time, error) {
	wall, err := time.Parse(localTime, text)
	if err != nil || len(text) != len(localTime) {
		return time.Time{}, fmt.Errorf("%s is not a time: write one such as 2026-12-31T23:59:00, in the zone of the schedule", quoted(text))
	}
	t, ok := onWall(wall, zone)
	if !ok {
		return time.Time{}, fmt.Errorf("the clocks of %s skip %s: write another time", zone, text)
	}
	return t, nil
}

// bound limits the schedule to the time from start to end, both of which may be
// zero. A rate counts from start on.
func (s *Schedule) bound(start, end time.Time) {
	s.start, s.end = start, end
	if r, ok := s.times.(*rateTimes); ok {
		r.anchor = start
	}
}

// Next is the first tick after a moment; false when there is none any more.
func (s *Schedule) Next(after time.Time) (Tick, bool) {
	var tick Tick
	next := s.next(after, func(wall time.Time) { tick.Skipped = append(tick.Skipped, wall) })
	if next.IsZero() {
		return Tick{}, false
	}
	tick.Time = next.In(s.zone)
	_, wall := s.times.(*wallTimes)
	tick.Again = wall && twice(next, s.zone)
	return tick, true
}

// next is the time of the first tick after a moment, or zero.
func (s *Schedule) next(after time.Time, skipped func(time.Time)) time.Time {
	if !s.start.IsZero() && after.Before(s.start) {
		after = s.start.Add(-1)
	}
	next := s.times.after(after, skipped)
	if !s.end.IsZero() && next.After(s.end) {
		return time.Time{}
	}
	return next
}
