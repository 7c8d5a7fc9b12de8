package jetstream

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"sluice/bus"
)

// maxKey bounds a key in bytes: as a subject it takes at most three times that,
// and NATS accepts protocol lines of 4 KiB.
const maxKey = 255

// keyToken writes a key as one token of a NATS subject: letters, digits, - and _
// as they are, any other byte as = and two hex digits, no byte at all as a lone =.
func keyToken(key string) (string, error) {
	if len(key) > maxKey {
		return "", fmt.Errorf("jetstream: a key of %d bytes: %w", len(key), bus.ErrTooLarge)
	}
	if key == "" {
		return "=", nil
	}
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// tokenKey is the key that keyToken wrote as token.
func tokenKey(token string) string {
	if !strings.Contains(token, "=") {
		return token
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] == '=' && i+3 <= len(token) {
			if c, err := hex.DecodeString(token[i+1 : i+3]); err == nil {
				b.WriteByte(c[0])
				i += 2
			}
		} else if token[i] != '=' {
			b.WriteByte(token[i])
		}
	}
	return b.String()
}

// checkStateKey holds a key of the state table to what bus.Log promises to take,
// which is what NATS takes as it is.
func checkStateKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("jetstream: a state key of %d bytes: %w", len(key), bus.ErrTooLarge)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`).MatchString(key) {
		return fmt.Errorf("jetstream: %q cannot be a state key: use letters, digits, - and _ with dots between", key)
	}
	return nil
}
