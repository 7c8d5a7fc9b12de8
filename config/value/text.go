package value

import (
	"fmt"
	"log/slog"
)

// Text is a string that may hold references (see Resolver.Expand). It prints as it
// was written, references unresolved, so that what they stand for stays out of
// logs. The zero value is the empty text.
type Text struct {
	// Pointers, because fmt prints what is in another struct's unexported field
	// without asking its methods, and shows nothing but the address of these.
	source, value *string
}

// NewText is a text without references: s stands for itself.
func NewText(s string) Text {
	source := escape(s)
	return Text{&source, &s}
}

// Resolve sets t to source with its references looked up in r.
func (t *Text) Resolve(source string, r Resolver) error {
	v, err := r.Expand(source)
	if err != nil {
		return err
	}
	t.source, t.value = &source, &v
	return nil
}

// Value is the text with its references resolved.
func (t Text) Value() string { return deref(t.value) }

// String is the text as it was written.
func (t Text) String() string { return deref(t.source) }

// Equal reports that both were written alike and resolved to the same.
func (t Text) Equal(other Text) bool {
	return t.String() == other.String() && t.Value() == other.Value()
}

// Format prints String, whatever the verb.
func (t Text) Format(s fmt.State, verb rune) { format(s, verb, t.String()) }

// GoString is String in quotes.
func (t Text) GoString() string { return fmt.Sprintf("%q", t.String()) }

// MarshalText is String.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue is String.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
