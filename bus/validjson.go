package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/bus/jsonscan"
)

// MaxDepth is how deep JSON may be nested. gjson, like every recursive parser that
// an event may come to later, takes stack for each level: 8 MiB of "[" end the process
// with a stack overflow, which nothing can recover from.
const MaxDepth = 1000

// ValidJSON tells whether doc is one JSON document no deeper than MaxDepth.
func ValidJSON(doc []byte) bool { return jsonscan.Valid(doc, MaxDepth) }

// tooDeep tells whether doc, which is not valid, is nested deeper than MaxDepth.
func tooDeep(doc []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			if depth > MaxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// checkJSON says what keeps doc from being a JSON document.
func checkJSON(doc []byte) error {
	if !utf8.Valid(doc) {
		return errors.New("the document is not valid UTF-8")
	}
	if ValidJSON(doc) {
		return nil
	}
	return errors.New("the document is not valid JSON: " + jsonFault(doc))
}

// jsonFault says where doc stops being JSON.
func jsonFault(doc []byte) string {
	if tooDeep(doc) {
		return fmt.Sprintf("it is nested deeper than %d levels", MaxDepth)
	}
	var v json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(doc, &v); errors.As(err, &syntax) {
		return fmt.Sprintf("%s at byte %d", syntax.Error(), syntax.Offset)
	}
	return "invalid encoding"
}

// loneSurrogate finds an escape such as \ud800 in the raw text of a valid JSON
// string that is not half of a pair. A decoder would replace it in silence.
func loneSurrogate(raw string) bool {
	if !strings.Contains(raw, `\u`) {
		return false
	}
	half := false // the escape before was the first half of a pair
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			if half {
				return true
			}
			continue
		}
		i++
		if raw[i] != 'u' {
			if half {
				return true
			}
			continue
		}
		r, _ := strconv.ParseUint(raw[i+1:i+5], 16, 16) // the document was validated
		i += 4
		first, second := r>>10 == 0xd800>>10, r>>10 == 0xdc00>>10
		if second != half {
			return true
		}
		half = first
	}
	return half
}
