package dispatch

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"
	"weak"
)

// A waiting delivery is counted by what is kept of answers and errors, and that is all
// that it holds in memory: not the answer of 1 MiB that it is the start of.
func TestAttemptsHoldWhatTheyKeep(t *testing.T) {
	t.Parallel()
	var d delivery
	d.addAttempt(Attempt{Answer: make([]byte, 1<<20)})
	if kept := d.attempts[0].Answer; len(kept) != maxAnswer || cap(kept) > 2*maxAnswer {
		t.Errorf("%d bytes of an answer are kept, in %d", len(kept), cap(kept))
	}
	kept, whole := func() (string, weak.Pointer[[1 << 20]byte]) {
		raw := new([1 << 20]byte)
		return errorText(errors.New(unsafe.String(&raw[0], len(raw)))), weak.Make(raw)
	}()
	runtime.GC()
	if len(kept) != maxError || whole.Value() != nil {
		t.Errorf("%d bytes of an error hold on to the whole of it: %v", len(kept), whole.Value() != nil)
	}
	runtime.KeepAlive(kept)
}
