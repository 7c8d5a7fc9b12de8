package sources_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/sources"
)

const minuteFormat = "2006-01-02T15:04"

func mustSchedule(t testing.TB, expression, zone string) *sources.Schedule {
	t.Helper()
	s, err := sources.ParseSchedule(expression, zone)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return s
}

func mustTime(t testing.TB, text string) time.Time {
	t.Helper()
	for _, format := range []string{time.RFC3339, minuteFormat} {
		if at, err := time.Parse(format, text); err == nil {
			return at
		}
	}
	t.Fatalf("%q is no time", text)
	return time.Time{}
}

// TestScheduleNext gives, for an expression and the moment after which to look, the
// times that follow; "-" is the end. 2026-01-01 is a Thursday.
func TestScheduleNext(t *testing.T) {
	t.Parallel()
	const newYear = "2026-01-01T00:00"
	for _, row := range []struct{ expr, after, want string }{
		// The six fields of AWS.
		{"cron(0 2 * * ? *)", newYear, "2026-01-01T02:00 2026-01-02T02:00 2026-01-03T02:00"},
		{"cron(15 12 * * ? *)", newYear, "2026-01-01T12:15 2026-01-02T12:15"},
		{"cron(0 18 ? * MON-FRI *)", newYear, "2026-01-01T18:00 2026-01-02T18:00 2026-01-05T18:00"},
		{"cron(0 8 1 * ? *)", newYear, "2026-01-01T08:00 2026-02-01T08:00 2026-03-01T08:00"},
		{"cron(0/15 * * * ? *)", newYear, "2026-01-01T00:15 2026-01-01T00:30 2026-01-01T00:45 2026-01-01T01:00"},
		{"cron(*/25 * * * ? *)", newYear, "2026-01-01T00:25 2026-01-01T00:50 2026-01-01T01:00"},
		{"cron(0/5 8-17 ? * MON-FRI *)", "2026-01-02T17:50", "2026-01-02T17:55 2026-01-05T08:00 2026-01-05T08:05"},
		{"cron(0/30 20-2 ? * MON-FRI *)", newYear, "2026-01-01T00:30 2026-01-01T01:00 2026-01-01T01:30 2026-01-01T02:00 2026-01-01T02:30 2026-01-01T20:00"},
		{"cron(50-10 0 1 * ? *)", newYear, "2026-01-01T00:01 2026-01-01T00:02"},
		{"cron(5,35 8,20 * * ? *)", newYear, "2026-01-01T08:05 2026-01-01T08:35 2026-01-01T20:05 2026-01-01T20:35 2026-01-02T08:05"},
		{"cron(10-50/20 0 * * ? *)", newYear, "2026-01-01T00:10 2026-01-01T00:30 2026-01-01T00:50 2026-01-02T00:10"},
		{"cron(59 23 31 12 ? *)", newYear, "2026-12-31T23:59 2027-12-31T23:59"},
		{" cron( 0  2 * * ?  * ) ", newYear, "2026-01-01T02:00"},
		{"cron(00 02 01 01 ? *)", newYear, "2026-01-01T02:00 2027-01-01T02:00"},
		// Exactly at a tick the next one is meant.
		{"cron(0 2 * * ? *)", "2026-01-01T02:00", "2026-01-02T02:00"},
		{"cron(0 2 * * ? *)", "2026-01-01T01:59", "2026-01-01T02:00"},
		// L, L-n, LW and nW.
		{"cron(30 0 L * ? *)", newYear, "2026-01-31T00:30 2026-02-28T00:30 2026-03-31T00:30 2026-04-30T00:30"},
		{"cron(0 0 L FEB ? 2027-2028)", newYear, "2027-02-28T00:00 2028-02-29T00:00 -"},
		{"cron(0 0 l-3 * ? *)", newYear, "2026-01-28T00:00 2026-02-25T00:00 2026-03-28T00:00 2026-04-27T00:00"},
		{"cron(0 0 L-30 * ? *)", newYear, "2026-03-01T00:00 2026-05-01T00:00 2026-07-01T00:00"},
		{"cron(0 0 L-30 2 ? *)", newYear, "-"},
		{"cron(0 0 LW * ? *)", newYear, "2026-01-30T00:00 2026-02-27T00:00 2026-03-31T00:00 2026-04-30T00:00 2026-05-29T00:00"},
		{"cron(0 12 1W * ? *)", newYear, "2026-01-01T12:00 2026-02-02T12:00 2026-03-02T12:00 2026-04-01T12:00"},
		{"cron(0 12 1W AUG ? *)", newYear, "2026-08-03T12:00 2027-08-02T12:00 2028-08-01T12:00"},
		{"cron(0 0 15W * ? *)", newYear, "2026-01-15T00:00 2026-02-16T00:00 2026-03-16T00:00"},
		{"cron(0 0 15W AUG ? *)", newYear, "2026-08-14T00:00"},
		{"cron(0 0 31W * ? *)", newYear, "2026-01-30T00:00 2026-03-31T00:00 2026-05-29T00:00 2026-07-31T00:00"},
		{"cron(0 0 29W FEB ? *)", newYear, "2028-02-29T00:00 2032-02-27T00:00"},
		{"cron(0 0 1,15,L * ? *)", newYear, "2026-01-15T00:00 2026-01-31T00:00 2026-02-01T00:00"},
		{"cron(0 0 15W,LW * ? *)", newYear, "2026-01-15T00:00 2026-01-30T00:00 2026-02-16T00:00"},
		// Days of the week: 1 is Sunday; L, dL and d#n.
		{"cron(0 0 ? * 1 *)", newYear, "2026-01-04T00:00 2026-01-11T00:00"},
		{"cron(0 0 ? * 7 *)", newYear, "2026-01-03T00:00 2026-01-10T00:00"},
		{"cron(0 0 ? * L *)", newYear, "2026-01-03T00:00 2026-01-10T00:00"},
		{"cron(0 0 ? * 6L *)", newYear, "2026-01-30T00:00 2026-02-27T00:00 2026-03-27T00:00"},
		{"cron(0 0 ? * friL *)", newYear, "2026-01-30T00:00 2026-02-27T00:00"},
		{"cron(0 0 ? * 2#1 *)", newYear, "2026-01-05T00:00 2026-02-02T00:00 2026-03-02T00:00"},
		{"cron(0 0 ? * MON#5 *)", newYear, "2026-03-30T00:00 2026-06-29T00:00 2026-08-31T00:00"},
		{"cron(0 0 ? * 3#2 *)", newYear, "2026-01-13T00:00 2026-02-10T00:00"},
		{"cron(0 0 ? FEB 5#5 *)", newYear, "2052-02-29T00:00 2080-02-29T00:00"},
		{"cron(0 0 ? * FRI-MON *)", newYear, "2026-01-02T00:00 2026-01-03T00:00 2026-01-04T00:00 2026-01-05T00:00 2026-01-09T00:00"},
		{"cron(0 0 ? * 2/2 *)", newYear, "2026-01-02T00:00 2026-01-05T00:00 2026-01-07T00:00 2026-01-09T00:00"},
		{"cron(0 0 ? * MON,3#2,6L *)", "2026-01-06T00:00", "2026-01-12T00:00 2026-01-13T00:00 2026-01-19T00:00 2026-01-26T00:00 2026-01-30T00:00"},
		// Months and years, leap years, short months.
		{"cron(0 0 1 JAN,jul ? *)", newYear, "2026-07-01T00:00 2027-01-01T00:00"},
		{"cron(0 0 1 NOV-FEB ? *)", newYear, "2026-02-01T00:00 2026-11-01T00:00 2026-12-01T00:00 2027-01-01T00:00"},
		{"cron(0 0 1 */5 ? *)", newYear, "2026-06-01T00:00 2026-11-01T00:00 2027-01-01T00:00"},
		{"cron(0 0 29 2 ? *)", newYear, "2028-02-29T00:00 2032-02-29T00:00"},
		{"cron(0 0 29 2 ? *)", "2096-03-01T00:00", "2104-02-29T00:00"}, // 2100 is no leap year
		{"cron(0 0 29-31 2 ? *)", newYear, "2028-02-29T00:00 2032-02-29T00:00"},
		{"cron(0 0 30-2 FEB ? *)", newYear, "2026-02-01T00:00 2026-02-02T00:00 2027-02-01T00:00"},
		{"cron(0 0 31 * ? *)", newYear, "2026-01-31T00:00 2026-03-31T00:00 2026-05-31T00:00 2026-07-31T00:00"},
		{"cron(0 0 31 2,4 ? *)", newYear, "-"},
		{"cron(0 0 1 1 ? 2027-2028)", newYear, "2027-01-01T00:00 2028-01-01T00:00 -"},
		{"cron(0 0 1 1 ? 2026/3)", newYear, "2029-01-01T00:00 2032-01-01T00:00"},
		{"cron(0 0 1 1 ? 2199)", newYear, "2199-01-01T00:00 -"},
		{"cron(0 0 1 1 ? 1970)", newYear, "-"},
		{"cron(0 0 1 1 ? 1970)", "1969-06-01T00:00", "1970-01-01T00:00 -"},
		// Five fields: 0 and 7 are Sunday; a day of either kind, unless one begins with a star.
		{"0 2 * * *", newYear, "2026-01-01T02:00 2026-01-02T02:00"},
		{"*/15 * * * *", newYear, "2026-01-01T00:15 2026-01-01T00:30"},
		{"5/20 * * * *", newYear, "2026-01-01T00:05 2026-01-01T00:25 2026-01-01T00:45 2026-01-01T01:05"},
		{"23 0-20/10 * * *", newYear, "2026-01-01T00:23 2026-01-01T10:23 2026-01-01T20:23 2026-01-02T00:23"},
		{"0 0 * * 0", newYear, "2026-01-04T00:00 2026-01-11T00:00"},
		{"0 0 * * 7", newYear, "2026-01-04T00:00 2026-01-11T00:00"},
		{"0 0 * * sun", newYear, "2026-01-04T00:00 2026-01-11T00:00"},
		{"0 22 * * 1-5", newYear, "2026-01-01T22:00 2026-01-02T22:00 2026-01-05T22:00"},
		{"0 0 * * 5-7", newYear, "2026-01-02T00:00 2026-01-03T00:00 2026-01-04T00:00 2026-01-09T00:00"},
		{"0 0 * * SAT-SUN", newYear, "2026-01-03T00:00 2026-01-04T00:00 2026-01-10T00:00"},
		{"0 0 13 * 5", newYear, "2026-01-02T00:00 2026-01-09T00:00 2026-01-13T00:00 2026-01-16T00:00"},
		{"0 0 1-7 * *", newYear, "2026-01-02T00:00 2026-01-03T00:00"},
		{"0 0 */2 * 1", newYear, "2026-01-05T00:00 2026-01-19T00:00 2026-02-09T00:00"},
		{"0 0 1,31 * */2", newYear, "2026-01-31T00:00 2026-02-01T00:00 2026-03-01T00:00 2026-03-31T00:00"},
		{"0 0 29 FEB *", newYear, "2028-02-29T00:00"},
		{"0 0 30 2 *", newYear, "-"},
		// Rates count from 1970 on, or from start; at is once.
		{"rate(1 second)", newYear, "2026-01-01T00:00:01Z 2026-01-01T00:00:02Z"},
		{"rate(1 minute)", "2026-01-01T00:00:30Z", "2026-01-01T00:01 2026-01-01T00:02"},
		{"rate(5 minutes)", "2026-01-01T00:02", "2026-01-01T00:05 2026-01-01T00:10"},
		{"rate(1 hour)", newYear, "2026-01-01T01:00 2026-01-01T02:00"},
		{"rate(7 days)", newYear, "2026-01-08T00:00 2026-01-15T00:00"},
		{"at(2026-06-01T12:00:30)", newYear, "2026-06-01T12:00:30Z -"},
		{"at(2025-06-01T12:00:00)", newYear, "-"},
	} {
		checkNext(t, row.expr, "UTC", row.after, row.want)
	}
}

func checkNext(t *testing.T, expr, zone, after, want string) {
	t.Helper()
	s := mustSchedule(t, expr, zone)
	at := mustTime(t, after)
	for w := range strings.FieldsSeq(want) {
		tick, ok := s.Next(at)
		switch {
		case w == "-" && !ok:
		case !ok:
			t.Errorf("%s in %s: nothing after %s, want %s", expr, zone, at, w)
			return
		case w == "-":
			t.Errorf("%s in %s: %s after %s, want nothing", expr, zone, tick.Time, at)
		case !tick.Time.Equal(mustTime(t, w)):
			t.Errorf("%s in %s: %s after %s, want %s", expr, zone, tick.Time.Format(time.RFC3339), at, w)
			return
		}
		at = tick.Time
	}
}

// TestScheduleClockChanges is about the days on which the clocks change: a time that
// they skip has no tick, one that they show twice has one.
func TestScheduleClockChanges(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ expr, zone, after, want string }{
		// 2026-03-29: 02:00 becomes 03:00; 2026-10-25: 03:00 becomes 02:00.
		{"cron(30 1 * * ? *)", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T01:30:00+01:00 2026-03-30T01:30:00+02:00"},
		{"cron(0 2 * * ? *)", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-28T02:00:00+01:00 2026-03-30T02:00:00+02:00"},
		{"cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-28T02:30:00+01:00 2026-03-30T02:30:00+02:00"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-28T02:30:00+01:00 2026-03-30T02:30:00+02:00"},
		{"cron(0 3 * * ? *)", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T03:00:00+02:00 2026-03-30T03:00:00+02:00"},
		{"cron(0/30 * * * ? *)", "Europe/Berlin", "2026-03-29T00:15Z", "2026-03-29T01:30:00+01:00 2026-03-29T03:00:00+02:00 2026-03-29T03:30:00+02:00"},
		{"cron(30 2 29 3 ? 2026)", "Europe/Berlin", "2026-01-01T00:00Z", "-"},
		{"cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"cron(0 2 * * ? *)", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T02:00:00+02:00 2026-10-26T02:00:00+01:00"},
		{"cron(0 3 * * ? *)", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T03:00:00+01:00 2026-10-26T03:00:00+01:00"},
		{"cron(0/30 * * * ? *)", "Europe/Berlin", "2026-10-24T23:45Z", "2026-10-25T02:00:00+02:00 2026-10-25T02:30:00+02:00 2026-10-25T03:00:00+01:00"},
		{"cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-25T00:45Z", "2026-10-26T02:30:00+01:00"}, // between the two
		{"cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-25T01:15Z", "2026-10-26T02:30:00+01:00"}, // the second time round
		{"rate(30 minutes)", "Europe/Berlin", "2026-10-25T00:15Z", "2026-10-25T00:30:00Z 2026-10-25T01:00:00Z 2026-10-25T01:30:00Z"},
		{"at(2026-10-25T02:30:00)", "Europe/Berlin", "2026-10-01T00:00Z", "2026-10-25T02:30:00+02:00 -"},
		{"cron(0 0 L * ? *)", "Europe/Berlin", "2026-03-30T12:00Z", "2026-03-31T00:00:00+02:00"},
		// 2026-03-08: 02:00 becomes 03:00; 2026-11-01: 02:00 becomes 01:00.
		{"cron(30 2 * * ? *)", "America/New_York", "2026-03-07T00:00Z", "2026-03-07T02:30:00-05:00 2026-03-09T02:30:00-04:00"},
		{"cron(0 3 * * ? *)", "America/New_York", "2026-03-07T12:00Z", "2026-03-08T03:00:00-04:00"},
		{"cron(30 1 * * ? *)", "America/New_York", "2026-10-31T12:00Z", "2026-11-01T01:30:00-04:00 2026-11-02T01:30:00-05:00"},
		{"cron(0/20 1-2 * * ? *)", "America/New_York", "2026-11-01T05:30Z", "2026-11-01T01:40:00-04:00 2026-11-01T02:00:00-05:00"},
		{"0 9 * * 1-5", "America/New_York", "2026-03-06T15:00Z", "2026-03-09T09:00:00-04:00"},
		// 2026-04-05: 02:00 becomes 01:30; 2026-10-04: 02:00 becomes 02:30.
		{"cron(45 1 * * ? *)", "Australia/Lord_Howe", "2026-04-04T00:00Z", "2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30"},
		{"cron(15 1 * * ? *)", "Australia/Lord_Howe", "2026-04-04T00:00Z", "2026-04-05T01:15:00+11:00"},
		{"cron(0/15 * * * ? *)", "Australia/Lord_Howe", "2026-04-04T14:20Z", "2026-04-05T01:30:00+11:00 2026-04-05T01:45:00+11:00 2026-04-05T02:00:00+10:30"},
		{"cron(15 2 * * ? *)", "Australia/Lord_Howe", "2026-10-02T12:00Z", "2026-10-03T02:15:00+10:30 2026-10-05T02:15:00+11:00"},
		{"cron(30 2 * * ? *)", "Australia/Lord_Howe", "2026-10-03T12:00Z", "2026-10-04T02:30:00+11:00"},
		// Clocks that skip midnight, and one that skipped a whole day.
		{"cron(0 0 * * ? *)", "America/Sao_Paulo", "2018-11-02T12:00Z", "2018-11-03T00:00:00-03:00 2018-11-05T00:00:00-02:00"},
		{"cron(0 12 * * ? *)", "Pacific/Apia", "2011-12-29T00:00Z", "2011-12-29T12:00:00-10:00 2011-12-31T12:00:00+14:00"},
	} {
		checkNext(t, row.expr, row.zone, strings.Replace(row.after, "Z", ":00Z", 1), row.want)
	}
}

// TestTickNotes is what a tick says of the clock.
func TestTickNotes(t *testing.T) {
	t.Parallel()
	s := mustSchedule(t, "cron(0/30 2 * * ? *)", "Europe/Berlin")
	tick, _ := s.Next(mustTime(t, "2026-03-28T12:00"))
	if got := fmt.Sprint(tick.Skipped); got != "[2026-03-29 02:00:00 +0000 UTC 2026-03-29 02:30:00 +0000 UTC]" || tick.Again {
		t.Errorf("skipped %s, again %v", got, tick.Again)
	}
	if name, _ := tick.Time.Zone(); name != "CEST" {
		t.Errorf("the tick is in %s", name)
	}
	tick, _ = s.Next(mustTime(t, "2026-10-24T12:00"))
	if len(tick.Skipped) != 0 || !tick.Again {
		t.Errorf("skipped %v, again %v; want again", tick.Skipped, tick.Again)
	}
	if tick, _ = s.Next(tick.Time.Add(2 * time.Hour)); tick.Again {
		t.Error("2026-10-26 is an ordinary day")
	}
}

// TestScheduleErrors are expressions that are refused, with the field, the place
// and what to write.
func TestScheduleErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ expr, want string }{
		{"", "write cron(0 2 * * ? *)"},
		{"hello", "is no schedule: write cron(0 2 * * ? *)"},
		{"@daily", "write five fields such as 0 0 * * *"},
		{"every(5 minutes)", `"every" is no kind of schedule`},
		{"cron(0 2 * * ? *", "the closing ) is missing"},
		{"cron(0 2 * * *)", "this has 5: add the year, as in cron(0 2 * * ? *)"},
		{"cron(0 2 * *)", "this has 4"},
		{"0 2 * * ? *", "write cron(...) around the six fields"},
		{"cron(60 2 * * ? *)", `minutes (character 6): "60" is not from 0 to 59`},
		{"cron(0 24 * * ? *)", `hours (character 8): "24" is not from 0 to 23`},
		{"cron(0 2 0 * ? *)", `day of the month (character 10): "0" is not from 1 to 31`},
		{"cron(0 2 * 13 ? *)", `month (character 12): "13" is not from 1 to 12: write 6, JAN`},
		{"cron(0 2 * JUNE ? *)", `"JUNE" is not`},
		{"cron(0 2 ? * 0 *)", `"0" is not from 1 to 7, Sunday is 1`},
		{"cron(0 2 ? * 8 *)", `"8" is not from 1 to 7`},
		{"cron(0 2 * * ? 1969)", `year (character 16): "1969" is not from 1970 to 2199`},
		{"cron(0 2 * * ? 2030-2026)", "runs backwards"},
		{"cron(0 2 * * * *)", "has to be ?"},
		{"cron(0 2 1 * MON *)", "has to be ?"},
		{"cron(0 2 ? * ? *)", "? stands for the day of the month and for the day of the week"},
		{"cron(? 2 * * ? *)", "? cannot stand here: write *"},
		{"cron(0/0 2 * * ? *)", `minutes (character 8): the step "0" is not a number from 1 on`},
		{"cron(*/90 * * * ? *)", "rate(90 minutes) counts through"},
		{"cron(0 */24 * * ? *)", "the step 24 is larger than the field, which goes from 0 to 23"},
		{"cron(50-10/5 * * * ? *)", "cannot have a step"},
		{"cron(0 2 ? * 2#6 *)", `"6" is not from 1 to 5`},
		{"cron(0 2 ? * #1 *)", `"" is not from 1 to 7`},
		{"cron(0 2 L-31 * ? *)", "is not L-1 to L-30"},
		{"cron(0 2 LX * ? *)", `"LX" is not understood`},
		{"cron(0 2 W * ? *)", "write 1W to 31W"},
		{"cron(0 2 32W * ? *)", "write 1W to 31W"},
		{"cron(0 2 1-5W * ? *)", "write 1W to 31W"},
		{"cron(1,,2 2 * * ? *)", `minutes (character 8): "" is not from 0 to 59`},
		{"cron(99999999999999999999 2 * * ? *)", "is not from 0 to 59"},
		{"cron(-1 2 * * ? *)", `minutes (character 6): "" is not`},
		{"0 2 L * *", "L and W are not part of five-field cron"},
		{"0 2 * * 5L", "L and # are not part of five-field cron"},
		{"0 2 * * 1#2", "L and # are not part of five-field cron"},
		{"0 2 ? * *", "? cannot stand here"},
		{"0 22-2 * * *", `hours (character 3): "22-2" runs backwards`},
		{"0 0 * * 8", `"8" is not from 0 to 7`},
		{"rate(1 minutes)", `1 goes with "minute": write rate(1 minute)`},
		{"rate(5 minute)", `5 goes with "minutes": write rate(5 minutes)`},
		{"rate(0 minutes)", `"0" is not a number from 1 on`},
		{"rate(-5 minutes)", "is not a number from 1 on"},
		{"rate(1.5 hours)", "is not a number from 1 on"},
		{"rate(5)", "wants a number and a unit"},
		{"rate(5 weeks)", `rate (character 8): "weeks" is not a unit`},
		{"rate(999999999 days)", "longer than ten years"},
		{"at(2026-01-01)", "is not a time: write one such as 2026-12-31T23:59:00"},
		{"at(2026-02-30T00:00:00)", "is not a time"},
		{"at(2026-01-01T00:00:00Z)", "is not a time"},
		{strings.Repeat("1,", 300) + "1 * * * *", "longer than 512 bytes"},
	} {
		_, err := sources.ParseSchedule(row.expr, "UTC")
		var bad *sources.CronError
		switch {
		case err == nil:
			t.Errorf("%s: is taken", row.expr)
		case !errors.As(err, &bad) || bad.Offset < 0 || bad.Offset > len(row.expr):
			t.Errorf("%s: %#v is no CronError with a place in the expression", row.expr, err)
		case !strings.Contains(err.Error(), row.want):
			t.Errorf("%s: %q, want %q in it", row.expr, err, row.want)
		}
	}
	for _, zone := range []string{"Berlin", "Local", "../etc/passwd", "CET+1"} {
		if _, err := sources.ParseSchedule("0 0 * * *", zone); err == nil || !strings.Contains(err.Error(), "is not a time zone") {
			t.Errorf("zone %s: %v", zone, err)
		}
	}
	if _, err := sources.ParseSchedule("at(2026-03-29T02:30:00)", "Europe/Berlin"); err == nil || !strings.Contains(err.Error(), "the clocks of Europe/Berlin skip") {
		t.Errorf("a time that there is not: %v", err)
	}
}

// naive decides for one minute whether an expression names it, by spelling its
// fields out value by value: what the tests hold Next against.
func naive(expression string, w time.Time) bool {
	inner, aws := strings.CutPrefix(expression, "cron(")
	f := strings.Fields(strings.TrimSuffix(inner, ")"))
	last := time.Date(w.Year(), w.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	if !naiveField(f[0], w.Minute(), 0, 59) || !naiveField(f[1], w.Hour(), 0, 23) || !naiveField(f[3], int(w.Month()), 1, 12) {
		return false
	}
	dom := slices.ContainsFunc(strings.Split(f[2], ","), func(item string) bool {
		switch {
		case item == "?":
			return true
		case item == "L":
			return w.Day() == last
		case item == "LW":
			return w.Day() == naiveWeekday(w, last)
		case strings.HasPrefix(item, "L-"):
			n, _ := strconv.Atoi(item[2:])
			return w.Day() == last-n
		case strings.HasSuffix(item, "W"):
			n, _ := strconv.Atoi(strings.TrimSuffix(item, "W"))
			return n <= last && w.Day() == naiveWeekday(w, n)
		}
		return naiveField(item, w.Day(), 1, 31)
	})
	sunday := 0
	if aws {
		sunday = 1
	}
	dow := slices.ContainsFunc(strings.Split(f[4], ","), func(item string) bool {
		day := int(w.Weekday()) + sunday
		if d, n, ok := strings.Cut(item, "#"); ok {
			return d == strconv.Itoa(day) && n == strconv.Itoa((w.Day()+6)/7)
		}
		if d, ok := strings.CutSuffix(item, "L"); ok {
			return d == strconv.Itoa(day) && w.AddDate(0, 0, 7).Month() != w.Month()
		}
		if aws {
			return item == "?" || naiveField(item, day, 1, 7)
		}
		return naiveField(item, day, 0, 7) || day == 0 && naiveField(item, 7, 0, 7)
	})
	if !aws && f[2][0] != '*' && f[4][0] != '*' {
		return dom || dow
	}
	return dom && dow
}

// naiveWeekday walks away from a day until it meets a working day of the month.
func naiveWeekday(w time.Time, day int) int {
	for _, off := range []int{0, -1, 1, -2, 2} {
		at := time.Date(w.Year(), w.Month(), day+off, 0, 0, 0, 0, time.UTC)
		if at.Month() == w.Month() && at.Weekday() != time.Saturday && at.Weekday() != time.Sunday {
			return at.Day()
		}
	}
	return 0
}

func naiveField(field string, v, low, high int) bool {
	for item := range strings.SplitSeq(field, ",") {
		base, every, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			step, _ = strconv.Atoi(every)
		}
		from, to, ranged := strings.Cut(base, "-")
		a, b := low, high
		if base != "*" {
			a, _ = strconv.Atoi(from)
			switch {
			case ranged:
				b, _ = strconv.Atoi(to)
			case !stepped:
				b = a
			}
		}
		switch {
		case a <= b && v >= a && v <= b && (v-a)%step == 0:
			return true
		case a > b && (v >= a || v <= b):
			return true
		}
	}
	return false
}

// drawn are random expressions, often enough for a few weeks to hold a tick.
func drawn(t *rapid.T) string {
	pick := func(label string, low, high int) string {
		n := func(l string) int { return rapid.IntRange(low, high).Draw(t, label+l) }
		switch rapid.IntRange(0, 6).Draw(t, label) {
		case 0, 1:
			return "*"
		case 2:
			return strconv.Itoa(n("value"))
		case 3:
			a, b := n("from"), n("to")
			return fmt.Sprintf("%d-%d", min(a, b), max(a, b))
		case 4:
			return fmt.Sprintf("*/%d", rapid.IntRange(1, high-low).Draw(t, label+"step"))
		case 5:
			return fmt.Sprintf("%d,%d", n("one"), n("two"))
		}
		return fmt.Sprintf("%d/%d", n("start"), rapid.IntRange(1, high-low).Draw(t, label+"step"))
	}
	minute, hour, dom, month, dow := pick("minute", 0, 59), pick("hour", 0, 23), pick("dom", 1, 31), "*", "?"
	if rapid.Bool().Draw(t, "months") {
		month = pick("month", 1, 12)
	}
	if !rapid.Bool().Draw(t, "aws") {
		return strings.Join([]string{minute, hour, dom, month, pick("dow", 0, 7)}, " ")
	}
	if rapid.Bool().Draw(t, "weekly") {
		dom, dow = "?", rapid.SampledFrom([]string{pick("dow", 1, 7), "2#1", "6L", "6-2", "3#5,7"}).Draw(t, "special")
	} else if rapid.Bool().Draw(t, "special") {
		dom = rapid.SampledFrom([]string{"L", "LW", "L-3", "1W", "15W", "31W", "30W", "29-2", "1,L", "LW,15W"}).Draw(t, "special day")
	}
	return fmt.Sprintf("cron(%s %s %s %s %s *)", minute, hour, dom, month, dow)
}

// TestScheduleScan holds Next against a look at every single minute, in zones whose
// clocks change meanwhile.
func TestScheduleScan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		expr := drawn(t)
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"}).Draw(t, "zone")
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		around := rapid.SampledFrom([]string{"2026-03-06", "2026-03-27", "2026-04-03", "2026-10-02", "2026-10-23", "2026-10-30", "2028-02-26", "2026-12-29"}).Draw(t, "day")
		at, err := time.Parse(time.DateOnly, around)
		if err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Duration(rapid.IntRange(0, 4*24*3600).Draw(t, "seconds")) * time.Second)
		s, err := sources.ParseSchedule(expr, zone)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		const days = 12
		end := at.AddDate(0, 0, days)
		shown := map[string]bool{} // what the clock has shown
		var want []time.Time
		for m := at.Truncate(time.Minute).Add(-3 * time.Hour); !m.After(end); m = m.Add(time.Minute) {
			local := m.In(loc)
			reading := local.Format(minuteFormat)
			wall, _ := time.Parse(minuteFormat, reading)
			if !shown[reading] && m.After(at) && naive(expr, wall) {
				want = append(want, m)
			}
			shown[reading] = true
		}
		if len(want) > 200 {
			want = want[:200]
		}
		after := at
		for _, w := range want {
			tick, ok := s.Next(after)
			if !ok || !tick.Time.Equal(w) {
				t.Fatalf("%s in %s after %s: %s, the scan found %s", expr, zone, after, tick.Time, w)
			}
			after = tick.Time
		}
		if tick, ok := s.Next(after); ok && len(want) < 200 && !tick.Time.After(end) {
			t.Fatalf("%s in %s after %s: %s, which the scan did not find", expr, zone, after, tick.Time)
		}
	})
}

// FuzzParseSchedule looks for expressions that break the parser, or whose ticks do
// not go forward.
func FuzzParseSchedule(f *testing.F) {
	for _, seed := range []string{"cron(0 2 * * ? *)", "cron(0/5 8-17 ? * MON-FRI,6L,2#1 2026-2030/2)", "cron(0 0 L-3,LW,15W,29-2 FEB ? *)", "*/5 0-6 1,15 * 1-5",
		"rate(5 minutes)", "at(2026-12-31T23:59:00)", "cron(", "0 0 31 2 *", "rate(1 day)"} {
		f.Add(seed, "Europe/Berlin")
		f.Add(seed, "Australia/Lord_Howe")
	}
	f.Fuzz(func(t *testing.T, expression, zone string) {
		s, err := sources.ParseSchedule(expression, zone)
		if err != nil {
			var bad *sources.CronError
			if errors.As(err, &bad) && (bad.Offset < 0 || bad.Offset > len(expression)) {
				t.Fatalf("%q: the place %d is not in it", expression, bad.Offset)
			}
			return
		}
		at := time.Date(2026, 3, 29, 0, 59, 30, 0, time.UTC)
		for range 5 {
			tick, ok := s.Next(at)
			if !ok {
				return
			}
			if !tick.Time.After(at) {
				t.Fatalf("%q in %q: %s comes after %s", expression, zone, tick.Time, at)
			}
			at = tick.Time
		}
	})
}
