package config

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Changes are the names of what differs between two configs.
type Changes struct {
	Sources  Difference `json:"sources"`
	Sinks    Difference `json:"sinks"`
	Rules    Difference `json:"rules"`
	Sections []string   `json:"sections"` // server, store, dead_letters, dedup, removed_sinks, unmatched, tests
}

// Difference are names in the order of the config they are in.
type Difference struct {
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Changed []string `json:"changed"`
}

// Diff says what has to be done to get from one config to another. A source or
// sink has changed too when what a reference in it stands for has.
func Diff(from, to *Config) Changes {
	c := Changes{
		Sources: diff(from.Sources, to.Sources,
			func(s Source) string { return s.Name },
			func(a, b Source) bool { return a.Kind == b.Kind && reflect.DeepEqual(a.Settings, b.Settings) }),
		Sinks: diff(from.Sinks, to.Sinks,
			func(s Sink) string { return s.Name },
			func(a, b Sink) bool {
				return a.Kind == b.Kind && reflect.DeepEqual(a.Settings, b.Settings) && reflect.DeepEqual(a.Options, b.Options)
			}),
		Rules: diff(from.Rules, to.Rules,
			func(r Rule) string { return r.Name },
			func(a, b Rule) bool {
				return a.Description == b.Description && a.Enabled == b.Enabled &&
					a.Match.String() == b.Match.String() && slices.Equal(a.To, b.To) &&
					reflect.DeepEqual(a.Transform, b.Transform) && a.Where.String() == b.Where.String()
			}),
	}
	for _, s := range []struct {
		name  string
		equal bool
	}{
		{"server", reflect.DeepEqual(from.Server, to.Server)},
		{"store", from.Store == to.Store},
		{"dead_letters", from.DeadLetters == to.DeadLetters},
		{"dedup", from.Dedup == to.Dedup},
		{"removed_sinks", maps.Equal(from.RemovedSinks, to.RemovedSinks)},
		{"unmatched", slices.Equal(from.Unmatched, to.Unmatched)},
		{"tests", slices.EqualFunc(from.Tests, to.Tests, equalTests)},
	} {
		if !s.equal {
			c.Sections = append(c.Sections, s.name)
		}
	}
	return c
}

func equalTests(a, b Test) bool {
	return a.Name == b.Name && string(a.Event) == string(b.Event) && slices.Equal(a.Expect, b.Expect)
}

func diff[T any](from, to []T, name func(T) string, equal func(a, b T) bool) Difference {
	var d Difference
	old := make(map[string]T, len(from))
	for _, v := range from {
		old[name(v)] = v
	}
	kept := make(map[string]bool, len(to))
	for _, v := range to {
		was, had := old[name(v)]
		kept[name(v)] = true
		switch {
		case !had:
			d.Added = append(d.Added, name(v))
		case !equal(was, v):
			d.Changed = append(d.Changed, name(v))
		}
	}
	for _, v := range from {
		if !kept[name(v)] {
			d.Removed = append(d.Removed, name(v))
		}
	}
	return d
}

// Empty reports that nothing differs.
func (c Changes) Empty() bool {
	return c.Sources.Empty() && c.Sinks.Empty() && c.Rules.Empty() && len(c.Sections) == 0
}

// Empty reports that nothing differs.
func (d Difference) Empty() bool { return len(d.Added)+len(d.Removed)+len(d.Changed) == 0 }

// String is one line: "sinks +new -old ~changed; rules ~images; server".
func (c Changes) String() string {
	var parts []string
	for _, s := range []struct {
		name string
		diff Difference
	}{{"sources", c.Sources}, {"sinks", c.Sinks}, {"rules", c.Rules}} {
		if !s.diff.Empty() {
			parts = append(parts, s.name+s.diff.String())
		}
	}
	if parts = append(parts, c.Sections...); len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(parts, "; ")
}

// String is " +added -removed ~changed".
func (d Difference) String() string {
	var b strings.Builder
	for _, s := range []struct {
		sign  string
		names []string
	}{{" +", d.Added}, {" -", d.Removed}, {" ~", d.Changed}} {
		for _, name := range s.names {
			b.WriteString(s.sign + name)
		}
	}
	return b.String()
}

// LogValue is String.
func (c Changes) LogValue() slog.Value { return slog.StringValue(c.String()) }
