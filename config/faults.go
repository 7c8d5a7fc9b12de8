package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sluice/config/value"
)

// Severity says whether a fault stops the config from loading.
type Severity string

// A config with an error does not load; one with warnings does.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Pos is a place in a config file. Line and Col count from 1; they are 0 where the
// fault is about the file as a whole.
type Pos struct {
	File string
	Line int
	Col  int
}

// String is file:line:col.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Fault is one thing that is wrong with a config, and what to write instead.
type Fault struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Col      int      `json:"col"`
	Path     string   `json:"path"` // sinks.thumbs.http.url, rules.images.to[1]; "" for the file as a whole
	Msg      string   `json:"message"`
	Severity Severity `json:"severity"`
}

// String is file:line:col: path: message, and marks a warning.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(Pos{f.File, f.Line, f.Col}.String())
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	if f.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	b.WriteString(f.Msg)
	return b.String()
}

// Faults is everything that is wrong with a config, in the order of the files. It
// is the error of Load and Parse, and then holds the warnings too.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// maxFaults is how many faults are kept: a wrong file should not fill the terminal.
const maxFaults = 1000

// report collects faults.
type report struct {
	faults Faults
	failed bool
	wrong  map[string]bool // the paths with an error
	around map[string]bool // the paths with an error in them or further in
}

func newReport() *report {
	return &report{wrong: map[string]bool{}, around: map[string]bool{}}
}

func (r *report) errorf(at Pos, path, format string, args ...any) {
	r.failed = true
	r.add(at, path, SeverityError, fmt.Sprintf(format, args...))
	r.wrong[path] = true
	for ; path != "" && !r.around[path]; path = parent(path) {
		r.around[path] = true
	}
}

func (r *report) warnf(at Pos, path, format string, args ...any) {
	r.add(at, path, SeverityWarning, fmt.Sprintf(format, args...))
}

func (r *report) add(at Pos, path string, severity Severity, msg string) {
	switch {
	case len(r.faults) < maxFaults:
		r.faults = append(r.faults, Fault{at.File, at.Line, at.Col, path, msg, severity})
	case len(r.faults) == maxFaults:
		last := fmt.Sprintf("more than %d faults: mend these first", maxFaults)
		r.faults = append(r.faults, Fault{File: at.File, Msg: last, Severity: SeverityError})
	}
}

// sorted are the faults by position, and at one position by what they say.
func (r *report) sorted() Faults {
	slices.SortFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Msg, b.Msg),
		)
	})
	return r.faults
}

// keyed reports the faults that settings found in themselves: each at the value
// of its key, or at the nearest thing around it that was written.
func (d *decoder) keyed(path string, faults value.Faults) {
	var own Faults
	for _, f := range faults {
		at := path
		if f.Key != "" {
			at = path + "." + f.Key
		}
		if !d.follows(at) {
			own = append(own, Fault{Path: at, Msg: f.Msg})
		}
	}
	for _, f := range own { // only now: they do not follow from one another
		d.report.errorf(d.placeOf(f.Path), f.Path, "%s", f.Msg)
	}
}

// follows reports that a fault at path follows from one that was reported: what
// was written there, around it or in it did not get into the settings.
func (d *decoder) follows(path string) bool {
	for up := path; up != ""; up = parent(up) {
		if d.report.wrong[up] {
			return true
		}
	}
	if _, written := d.places[path]; !written {
		path = d.written(path) // the key may stand there misspelt
	}
	return path != "" && d.report.around[path]
}

// parent is the path around path.
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
