package bustest

import (
	"testing"

	"sluice/bus"
)

// testCheck looks over a log that has nothing wrong, if it can.
func testCheck(t *testing.T, h Harness) {
	checker, ok := h.Log.(bus.Checker)
	if !ok {
		t.Skip("this log has nothing that could be damaged")
	}
	for _, name := range bus.StreamNames() {
		s := h.Log.Stream(name)
		for _, key := range []string{"a", "b", "a", "b", "a"} {
			if _, err := s.Append(t.Context(), key, [][]byte{[]byte("x"), {}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Trim(t.Context(), "", 2); err != nil {
			t.Fatal(err)
		}
		if name != bus.Events {
			if err := s.Remove(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	look := func() {
		t.Helper()
		if err := checker.Check(t.Context(), func(f bus.Fault) error { t.Errorf("%s", f); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	look()
	checker = h.Reopen().(bus.Checker)
	look()
	if _, err := checker.Quarantine(t.Context(), bus.Fault{Stream: bus.Events, First: 2, Last: 2, Index: -1}, t.TempDir()); err == nil {
		t.Error("what is not repairable went into quarantine")
	}
}
