package rules

import (
	"fmt"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/sql/v2/utils"
	"github.com/cloudevents/sdk-go/v2/event"
)

// The limits of an expression. Parsing takes time that grows faster than the
// text, and both parsing and evaluating go as deep as the expression is nested.
const (
	maxWhereBytes  = 4096
	maxWhereTokens = 512
	maxWhereDepth  = 64
)

// Where is a condition on the attributes of an event that a pattern cannot
// express: a CloudEvents SQL expression (CESQL 1.0). It is immutable and may be
// shared.
type Where struct {
	text string
	expr cesql.Expression
}

// WhereError says what is wrong with an expression, where, and what to do.
type WhereError struct {
	Offset int // byte offset into the text
	Msg    string
}

func (e *WhereError) Error() string { return fmt.Sprintf("at byte %d: %s", e.Offset, e.Msg) }

// ParseWhere reads a CESQL expression. An error is always a *WhereError. A call
// of a function that does not exist is an error here and not only when an event
// comes to it.
func ParseWhere(text string) (*Where, error) {
	tree, err := checkWhere(text)
	if err != nil {
		return nil, err
	}
	expr, err := buildWhere(tree)
	if err != nil {
		return nil, &WhereError{Msg: err.Error()}
	}
	return &Where{text: text, expr: expr}, nil
}

// recovered makes an error of a panic in the library. What an expression makes it
// do is the business of one rule: the others go on.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the expression cannot be worked out: %v", p)
	}
}

// String is the expression as it was written; "" of nil.
func (w *Where) String() string {
	if w == nil {
		return ""
	}
	return w.text
}

// MarshalText is String.
func (w *Where) MarshalText() ([]byte, error) { return []byte(w.text), nil }

// Match tells whether the event fulfils the expression: whether its result, cast
// to a boolean, is true. With an error, such as an attribute that the event does
// not have, the answer is always false.
func (w *Where) Match(e event.Event) (bool, error) {
	result, err := w.evaluate(e)
	if err != nil {
		return false, err
	}
	yes, err := utils.Cast(result, cesql.BooleanType)
	if err != nil {
		return false, err
	}
	return yes == true, nil
}

func (w *Where) evaluate(e event.Event) (result any, err error) {
	defer recovered(&err)
	return w.expr.Evaluate(e)
}
