package sinks

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"sluice/bus"
)

// Error is a failed delivery with what the sink knows about it. The policy of
// bus/dispatch decides from it what happens next; errors.As finds it.
type Error struct {
	Err        error         // what failed
	Permanent  bool          // another attempt is pointless
	MayBeDone  bool          // of a batch: its events may have been done, so no part of it is to be sent by itself
	RetryAfter time.Duration // the far side asked to be left alone for so long; 0 when it did not
	NotBefore  time.Duration // it named this wait, for this one delivery; 0 when it did not
	Status     int           // the answer's status in HTTP terms; 0 when there was no answer
	Answer     []byte        // the start of the answer's body
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// The attribute HopsAttribute counts how many times an event was handed on: by the
// reply of a sink, and from one bus to another. More than MaxHops is a loop. AWS
// Lambda stops a function that calls itself after as many.
const (
	HopsAttribute = "sluicehops"
	MaxHops       = 16
)

// Hops is how many times an event was handed on. Publishers can write what they like
// there: what is no number was not counted by a bus, and one beyond all bounds is many.
func Hops(e bus.Event) int {
	n, err := strconv.ParseUint(e.Get(HopsAttribute), 10, 31)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return int(min(n, math.MaxInt32-1)) //nolint:gosec // it fits
}

// ErrLoop is in the error of a delivery that would hand an event on once more than
// MaxHops: the dead letter says so as its reason.
var ErrLoop = errors.New("a loop")

// Permanent marks err as final: the delivery goes to the dead letters at once.
// Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	e := describe(err)
	e.Permanent = true
	return e
}

// RetryAfter marks err as a request not to try again before after has passed.
// RetryAfter(nil, …) is nil.
func RetryAfter(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	e := describe(err)
	e.RetryAfter = after
	return e
}

// NotBefore marks err as a word of the far side's own about when this delivery is to
// come again. In contrast to RetryAfter, which a proxy may have set, it holds beyond
// an hour. NotBefore(nil, …) is nil.
func NotBefore(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	e := describe(err)
	e.NotBefore = after
	return e
}

// Answered is the error of an answer with a status that is no success; the
// verdict follows from the status. It keeps answer.
func Answered(status int, answer []byte) error {
	return &Error{Err: fmt.Errorf("answered %d", status), Status: status, Answer: answer}
}

// describe is a copy of the Error in err's chain, or a new one around err.
func describe(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		c.Err = err
		if err == error(e) { //nolint:errorlint // whether err itself is the Error, not what it wraps
			c.Err = e.Err
		}
		return &c
	}
	return &Error{Err: err}
}
