package value

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Secret is a text that never prints: every verb, encoding and logger shows ***.
// It should hold a reference (see Resolver.Expand); Literal tells when it does
// not. The zero value is no secret.
type Secret struct {
	source, value *string // pointers for the reason told at Text
}

// Stars is what a secret prints.
const Stars = "***"

// NewSecret is a literal secret: s stands for itself.
func NewSecret(s string) Secret {
	source := escape(s)
	return Secret{&source, &s}
}

// Resolve sets s to source with its references looked up in r. A secret that
// resolves to nothing is an error: it would turn a check off in silence.
func (s *Secret) Resolve(source string, r Resolver) error {
	v, err := r.Expand(source)
	if err != nil {
		return err
	}
	if v == "" {
		return errors.New("the secret is empty: give what it refers to a content, or leave the key out")
	}
	s.source, s.value = &source, &v
	return nil
}

// Value is the secret itself. Do not print it.
func (s Secret) Value() string { return deref(s.value) }

// IsZero reports that there is no secret.
func (s Secret) IsZero() bool { return s.value == nil }

// Literal reports that the secret was written out where a reference should stand.
func (s Secret) Literal() bool { return s.value != nil && !HasReference(*s.source) }

// Equal reports that both have the same value.
func (s Secret) Equal(other Secret) bool { return s.Value() == other.Value() }

// String is ***.
func (s Secret) String() string { return Stars }

// GoString is ***.
func (s Secret) GoString() string { return Stars }

// Format prints ***, whatever the verb.
func (s Secret) Format(f fmt.State, verb rune) { format(f, verb, Stars) }

// MarshalText is ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Stars), nil }

// MarshalJSON is "***".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Stars + `"`), nil }

// MarshalYAML is ***.
func (s Secret) MarshalYAML() (any, error) { return Stars, nil }

// LogValue is ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Stars) }

// format prints text with the flags of s; a verb that is not for texts prints it
// all the same.
func format(s fmt.State, verb rune, text string) {
	switch {
	case verb == 'v' && s.Flag('#'):
		verb = 'q'
	case verb != 'q' && verb != 'x' && verb != 'X':
		verb = 's'
	}
	_, _ = fmt.Fprintf(s, fmt.FormatString(s, verb), text) // a State never fails
}

// escape is the source form of a text that holds no reference.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// Secrets are one secret, or several while one takes the place of another: each
// of them is good. In YAML it is a text or a list.
type Secrets []Secret

// Contain tells whether sent is one of them, in a time that does not depend on how
// much of it is right.
func (s Secrets) Contain(sent string) bool {
	hash, found := sha256.Sum256([]byte(sent)), 0
	for _, secret := range s {
		one := sha256.Sum256([]byte(secret.Value()))
		found |= subtle.ConstantTimeCompare(one[:], hash[:])
	}
	return found == 1
}
