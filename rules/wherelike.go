package rules

import (
	"unicode/utf8"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/sql/v2/utils"
	"github.com/cloudevents/sdk-go/v2/event"
)

// like is the operator LIKE (CESQL 1.0 §3.4.2): % stands for any characters or none,
// _ for one, and \% and \_ for themselves. It is here because that of the library
// takes a % in the event for the one of the pattern ('50% off' LIKE '50%off' is false
// there), a backslash in the event for that of \%, and counts bytes for _.
type like struct {
	of      cesql.Expression
	pattern []rune
}

// The wildcards in a pattern that was read.
const (
	anyCharacters rune = -1 - iota
	oneCharacter
)

// parseLike reads a pattern. A backslash before anything else stands for itself.
func parseLike(text string) (pattern []rune) {
	escaped := false
	for i, r := range text {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && i+1 < len(text) && (text[i+1] == '%' || text[i+1] == '_'):
			escaped = true
			continue
		case r == '%':
			r = anyCharacters
		case r == '_':
			r = oneCharacter
		}
		pattern = append(pattern, r)
	}
	return pattern
}

// Evaluate is cesql.Expression.
func (l *like) Evaluate(e event.Event) (any, error) {
	v, err := l.of.Evaluate(e)
	if err == nil {
		v, err = utils.Cast(v, cesql.StringType)
	}
	if err != nil {
		return false, err
	}
	text, _ := v.(string)
	return l.match(text), nil
}

// match goes back to the latest % alone: what an earlier one could take more of, that
// one can too.
func (l *like) match(text string) bool {
	at, next := 0, 0             // in the text and in the pattern
	retryAt, retryNext := -1, -1 // behind the latest %, and what that has taken so far
	for at < len(text) || next < len(l.pattern) {
		r, size := utf8.DecodeRuneInString(text[at:])
		switch {
		case next < len(l.pattern) && l.pattern[next] == anyCharacters:
			next++
			retryAt, retryNext = at, next
		case at < len(text) && next < len(l.pattern) && (l.pattern[next] == oneCharacter || l.pattern[next] == r):
			at, next = at+size, next+1
		case retryAt >= 0 && retryAt < len(text):
			_, size = utf8.DecodeRuneInString(text[retryAt:])
			retryAt += size
			at, next = retryAt, retryNext
		default:
			return false
		}
	}
	return true
}
