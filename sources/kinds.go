package sources

import (
	"context"
	"log/slog"
	"net/http"

	"sluice/config/value"
)

// Kind is one kind of source: a row of Kinds. The config schema, the docs and the
// `kinds` command derive from it.
type Kind struct {
	Name string // the key in the config
	Doc  string // one sentence
	// New returns the kind's settings with their defaults filled in, a pointer to
	// a struct with yaml and doc tags that the config loader decodes into.
	New func() Settings
}

// Settings are the decoded settings of one source.
type Settings interface {
	// Validate finds what a single value cannot show.
	Validate() []value.Fault
	// Open makes the source. It does not wait for the far side.
	Open(ctx context.Context, env Env) (Source, error)
}

// Env is what a source is given besides its settings.
type Env struct {
	Name string // the name of the source in the config
	Log  *slog.Logger
	// Handle serves a path of the bus's own listener for as long as the source
	// runs. The path is taken when Open calls it: an error says who has it.
	Handle func(path string, h http.Handler) error
	// Observe counts what became of events at the door. It may be nil.
	Observe func(outcome Outcome, events int)
}

// Kinds is the table of every kind of source. A new kind is one file, one test
// through sourcetest.Run and one line here.
func Kinds() []Kind {
	return []Kind{
		{"http", "Takes CloudEvents over HTTP on a path of its own.", func() Settings { return NewHTTP() }},
	}
}
