package value

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

// URL is an absolute URL. It may be written with references (see Resolver.Expand)
// and then prints as written; a password in it prints as xxxxx. The zero value is
// no URL. Keep it in an exported field: fmt prints others without its methods.
type URL struct {
	*url.URL
	source  string // as written, when that holds references, without a literal password
	literal bool   // a password was written out
}

// ParseURL reads an absolute URL with one of schemes, or http and https when there
// are none.
func ParseURL(text string, schemes ...string) (URL, error) {
	if len(schemes) == 0 {
		schemes = []string{"http", "https"}
	}
	example := schemes[0] + "://host/path"
	u, err := url.Parse(text)
	switch {
	case text == "":
		return URL{}, fmt.Errorf("is empty: write a URL such as %s", example)
	case err != nil:
		// The parser's own message quotes the text, which may hold a password.
		return URL{}, fmt.Errorf("is not a URL: write one such as %s, with special characters percent-encoded", example)
	case u.Scheme == "" || !strings.Contains(text, "://"):
		return URL{}, fmt.Errorf("is not an absolute URL: write one such as %s", example)
	case !slices.Contains(schemes, u.Scheme):
		return URL{}, fmt.Errorf("has the scheme %q: write %s", u.Scheme, strings.Join(schemes, " or "))
	case u.Hostname() == "":
		return URL{}, fmt.Errorf("names no host: write one such as %s", example)
	}
	_, literal := u.User.Password()
	return URL{URL: u, literal: literal}, nil
}

// Resolve sets u to source with its references looked up in r, as ParseURL reads
// it.
func (u *URL) Resolve(source string, r Resolver, schemes ...string) error {
	text, err := r.Expand(source)
	if err != nil {
		return err
	}
	v, err := ParseURL(text, schemes...)
	if err != nil {
		return err
	}
	if HasReference(source) {
		v.source, v.literal = hidePassword(source, v.User)
	}
	*u = v
	return nil
}

// hidePassword replaces the password of user in source, if it stands there itself
// and not as a reference.
func hidePassword(source string, user *url.Userinfo) (hidden string, found bool) {
	plain, has := user.Password()
	if !has || plain == "" {
		return source, false
	}
	_, encoded, _ := strings.Cut(user.String(), ":")
	for _, password := range []string{plain, encoded} {
		if written := ":" + password + "@"; strings.Contains(source, written) {
			return strings.Replace(source, written, ":xxxxx@", 1), true
		}
	}
	return source, false
}

// IsZero reports that there is no URL.
func (u URL) IsZero() bool { return u.URL == nil }

// Literal reports that the URL holds a password that was written out.
func (u URL) Literal() bool { return u.literal }

// Equal reports that both are the same URL, passwords included.
func (u URL) Equal(other URL) bool {
	if u.URL == nil || other.URL == nil {
		return u.URL == other.URL
	}
	return u.URL.String() == other.URL.String()
}

// String is the URL as it was written, with xxxxx for a password. For the URL
// that is to be called use u.URL.
func (u URL) String() string {
	switch {
	case u.URL == nil:
		return ""
	case u.source != "":
		return u.source
	}
	return u.Redacted()
}

// GoString is String in quotes.
func (u URL) GoString() string { return fmt.Sprintf("%q", u.String()) }

// Format prints String, whatever the verb.
func (u URL) Format(s fmt.State, verb rune) { format(s, verb, u.String()) }

// MarshalText is String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalBinary is String: the method of url.URL would show the password.
func (u URL) MarshalBinary() ([]byte, error) { return []byte(u.String()), nil }

// AppendBinary appends String, for the same reason.
func (u URL) AppendBinary(b []byte) ([]byte, error) { return append(b, u.String()...), nil }

// LogValue is String.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }
