package cli

import (
	"strings"
	"testing"
	"time"
)

func TestHuman(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{ago(noon(), time.Time{}), "never"},
		{ago(noon(), noon()), "just now"},
		{ago(noon(), noon().Add(time.Hour)), "just now"}, // clocks differ
		{ago(noon(), noon().Add(-3*time.Minute-40*time.Second)), "3m ago"},
		{ago(noon(), noon().Add(-49*time.Hour)), "2d ago"},
		{span(0), "0s"},
		{span(1500 * time.Nanosecond), "1µs"},
		{span(340 * time.Millisecond), "340ms"},
		{span(59*time.Second + 999*time.Millisecond), "59s"},
		{span(23 * time.Hour), "23h"},
		{size(0), "0 B"},
		{size(1023), "1023 B"},
		{size(1024), "1.0 KiB"},
		{size(10 << 30), "10.0 GiB"},
		{size(1 << 62), "4096.0 PiB"},
		{plural(1, "rule"), "1 rule"},
		{plural(0, "rule"), "0 rules"},
		{join(nil, "none"), "none"},
		{join([]string{"a", "b"}, "none"), "a, b"},
		{oneLine("a\tb\x1b[31m\nc\u0085d"), "a b [31m c d"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestWhen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"":                          {},
		"24h":                       noon().Add(-24 * time.Hour),
		"7d":                        noon().AddDate(0, 0, -7),
		"2026-04-30T12:00:00+02:00": time.Date(2026, 4, 30, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := when(noon(), "since", text); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "2026-04-30"} {
		if _, err := when(noon(), "since", text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	table := newTable("NAME", "N", "LAST")
	table.add("ä", 1, "one\ntwo")
	table.add("long name", "", "")
	var out strings.Builder
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "NAME       N  LAST\n" +
		"ä          1  one two\n" +
		"long name  -\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
