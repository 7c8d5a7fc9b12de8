package bus

import (
	"mime"
	"net/url"
	"testing"
)

// What is not given to the parser is what the parser takes.
func TestShortcutsAgreeWithParsers(t *testing.T) {
	t.Parallel()
	const letters = "aZ09/-._~:%[]@?# é\x7f"
	var all func(prefix string, left int)
	all = func(prefix string, left int) {
		if _, err := url.Parse(prefix); isReference(prefix) != (err == nil) {
			t.Errorf("isReference(%q) is %v, net/url says %v", prefix, isReference(prefix), err)
		}
		if left == 0 {
			return
		}
		for i := range len(letters) {
			all(prefix+letters[i:i+1], left-1)
		}
	}
	all("", 4)
	for _, s := range []string{"application/json", "Application/JSON", "application/json ", "application/json; a", "text/plain; charset=utf-8", "application", "a/b c", ""} {
		if _, _, err := mime.ParseMediaType(s); isMediaType(s) != (err == nil) {
			t.Errorf("isMediaType(%q) is %v, mime says %v", s, isMediaType(s), err)
		}
	}
}
