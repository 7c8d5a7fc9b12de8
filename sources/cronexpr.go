package sources

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// This file is about cron expressions alone: which minutes of a calendar without
// zones they name. cronparse.go reads them, cronschedule.go puts them into a zone.
// There is no library behind it: the one for the AWS syntax (cronplan 1.10.1)
// panics on 29-31 in a February and takes 31W of some short months for their last
// weekday but of others for nothing, and those for the five-field syntax know
// neither L, W and # nor that AWS counts Sunday as 1.

// The years that an expression may name, as for AWS.
const (
	cronFirstYear = 1970
	cronLastYear  = 2199
)

// cronExpr are the minutes that an expression names, field by field as bits.
type cronExpr struct {
	minutes, hours, months uint64 // bit n stands for n
	dom                    uint64 // days of the month
	dow                    uint64 // days of the week, Sunday is 0
	years                  []bool // by year from cronFirstYear on; nil for all

	lastDays    uint64 // L-n of the day of the month: bit n
	lastWeekday bool   // LW
	nearest     uint64 // nW: bit n
	nth         uint64 // d#n of the day of the week: bit n*7+d, n from 1
	lastDow     uint64 // dL: bit d

	// Which days count: those that both fields name, or those that either does.
	either bool
}

// next is the first minute from a minute on that the expression names. Both are
// wall clock readings, written as times in UTC. It is false when there is none.
func (e *cronExpr) next(from time.Time) (time.Time, bool) {
	year, month, day := from.Date()
	hour, minute := from.Hour(), from.Minute()
	if year < cronFirstYear {
		year, month, day, hour, minute = cronFirstYear, time.January, 1, 0, 0
	}
	for year <= cronLastYear {
		if e.inYear(year) && has(e.months, int(month)) {
			days := e.days(year, month)
			for d := nextBit(days, day); d >= 0; d = nextBit(days, d+1) {
				if d != day {
					hour, minute = 0, 0
				}
				if h, m, ok := e.timeOfDay(hour, minute); ok {
					return time.Date(year, month, d, h, m, 0, 0, time.UTC), true
				}
			}
		}
		day, hour, minute = 1, 0, 0
		if month++; month > time.December || !e.inYear(year) {
			year, month = year+1, time.January
		}
	}
	return time.Time{}, false
}

// timeOfDay is the first time from a time on, on the same day.
func (e *cronExpr) timeOfDay(hour, minute int) (h, m int, ok bool) {
	for h = nextBit(e.hours, hour); h >= 0; h = nextBit(e.hours, h+1) {
		if h != hour {
			minute = 0
		}
		if m = nextBit(e.minutes, minute); m >= 0 {
			return h, m, true
		}
	}
	return 0, 0, false
}

func (e *cronExpr) inYear(year int) bool { return e.years == nil || e.years[year-cronFirstYear] }

// days are the days of a month that the expression names.
func (e *cronExpr) days(year int, month time.Month) uint64 {
	first := int(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday())
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	all := uint64(1)<<(last+1) - 2
	byMonth, byWeek := e.daysOfMonth(first, last)&all, e.daysOfWeek(first, last)&all
	if e.either {
		return byMonth | byWeek
	}
	return byMonth & byWeek
}

// daysOfMonth are the days that the day of the month names in a month that begins
// on the weekday first and has last days; what is beyond that is no day.
func (e *cronExpr) daysOfMonth(first, last int) uint64 {
	days := e.dom
	for n := nextBit(e.lastDays, 0); n >= 0; n = nextBit(e.lastDays, n+1) {
		if n < last {
			days |= 1 << (last - n)
		}
	}
	if e.lastWeekday {
		days |= 1 << nearestWeekday(last, first, last)
	}
	// A month without that day has no weekday next to it.
	for n := nextBit(e.nearest, 1); n >= 0 && n <= last; n = nextBit(e.nearest, n+1) {
		days |= 1 << nearestWeekday(n, first, last)
	}
	return days
}

func (e *cronExpr) daysOfWeek(first, last int) uint64 {
	var days uint64
	for d := 1; d <= last; d++ {
		dow := (first + d - 1) % 7
		if has(e.dow, dow) || has(e.nth, ((d-1)/7+1)*7+dow) || d+7 > last && has(e.lastDow, dow) {
			days |= 1 << d
		}
	}
	return days
}

// nearestWeekday is the day from Monday to Friday next to a day, in the same month.
func nearestWeekday(day, first, last int) int {
	switch dow := time.Weekday((first + day - 1) % 7); {
	case dow == time.Saturday && day > 1:
		return day - 1
	case dow == time.Saturday:
		return day + 2
	case dow == time.Sunday && day < last:
		return day + 1
	case dow == time.Sunday:
		return day - 2
	}
	return day
}

func has(set uint64, n int) bool { return set>>n&1 == 1 }

// nextBit is the lowest bit of a set from n on, or -1.
func nextBit(set uint64, n int) int {
	if set >>= n; n > 63 || set == 0 {
		return -1
	}
	return n + bits.TrailingZeros64(set)
}

// cronField is one field of an expression, with what it may hold.
type cronField struct {
	name     string
	min, max int
	names    []string // of the values from min on
	example  string
}

// The fields, in their order.
func cronFields(aws bool) []cronField {
	months := []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
	days := []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
	fields := []cronField{
		{"minutes", 0, 59, nil, "0, */15 or 0-29"},
		{"hours", 0, 23, nil, "2, */6 or 8-17"},
		{"day of the month", 1, 31, nil, "1, 15 or 1-7"},
		{"month", 1, 12, months, "6, JAN or MAR-MAY"},
		{"day of the week", 0, 7, append(days, "SUN"), "1, MON or MON-FRI (0 and 7 are Sunday)"},
	}
	if aws {
		fields[2].example = "1, L, LW, 15W or ?"
		fields[4] = cronField{"day of the week", 1, 7, days, "2, MON-FRI, 6L, 2#1 or ? (1 is Sunday)"}
		fields = append(fields, cronField{"year", cronFirstYear, cronLastYear, nil, "* or 2026-2028"})
	}
	return fields
}

// number is the value that a text stands for.
func (f *cronField) number(text string) (int, bool) {
	for i, name := range f.names {
		if strings.EqualFold(name, text) {
			return f.min + i, true
		}
	}
	if text == "" || len(text) > 4 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}
