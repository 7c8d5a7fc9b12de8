// Package value holds the types of config values that YAML does not have:
// durations, byte sizes, rates, references to secrets. They decode from text, say
// what is wrong with it, and never print a secret. It imports nothing of ours, so
// that every connector can use it in its settings.
package value

// Fault is one thing that is wrong with settings: the key it is about, with dots
// between nested keys and "" for the settings as a whole, and what to do about it.
type Fault struct {
	Key string
	Msg string
}
