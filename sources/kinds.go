package sources

import (
	"context"

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

// Kinds is the table of every kind of source. A new kind is one file, one test
// through sourcetest.Run and one line here.
func Kinds() []Kind {
	return []Kind{
		{"http", "Takes CloudEvents over HTTP on a path of its own.", func() Settings { return NewHTTP() }},
	}
}
