package cli

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"sluice/bus/dispatch"
)

// foreman gives a job in one state after the other.
func foreman(t *testing.T, states ...dispatch.Job) *rig {
	t.Helper()
	next := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		job := states[min(next, len(states)-1)]
		next++
		job.ID, job.Created = "j1", noon()
		if job.Redrive == nil && job.Replay == nil {
			job.Redrive = &dispatch.Redrive{}
		}
		status := http.StatusOK
		if r.Method == http.MethodPost {
			status = http.StatusAccepted
		}
		answer(w, status, job)
	})
	return newRig(s.URL)
}

func TestFollow(t *testing.T) {
	t.Parallel()
	states := []dispatch.Job{
		{State: dispatch.JobRunning, Total: 10},
		{State: dispatch.JobRunning, Total: 10, Scanned: 4, Chosen: 2, Sent: 1},
		{State: dispatch.JobRunning, Total: 10, Scanned: 4, Chosen: 2, Sent: 1},
		{State: dispatch.JobDone, Total: 10, Scanned: 10, Chosen: 5, Sent: 4, Skipped: 1},
	}
	const want = "redrive j1 done: looked at 10 of 10, chosen 5, sent 4, skipped 1 without a sink to go to\n"
	r := foreman(t, states...)
	r.run(t, exitOK, "dlq", "redrive")
	if r.out.String() != want {
		t.Errorf("got %s", r.out)
	}
	if got := r.err.String(); got != "looked at 4 of 10, chosen 2, sent 1\n" {
		t.Errorf("told %q", got)
	}
	if len(r.slept) != 3 || r.slept[0] != firstLook || r.slept[2] != 4*firstLook {
		t.Errorf("slept %v", r.slept)
	}

	r = foreman(t, states...)
	r.terminal = func(stream any) bool { return stream == r.err }
	r.run(t, exitOK, "dlq", "redrive")
	contains(t, r.err, "redrive: sent 1")
	contains(t, r.out, want)

	r = foreman(t, states...)
	r.run(t, exitOK, "dlq", "redrive", "-o", "json", "-q")
	contains(t, r.out, `"state": "done"`)

	r = foreman(t, states...)
	r.run(t, exitOK, "dlq", "redrive", "--detach")
	if r.out.String() != "j1\n" || len(r.slept) != 0 {
		t.Errorf("got %s, slept %v", r.out, r.slept)
	}
}

func TestFollowEndsBadly(t *testing.T) {
	t.Parallel()
	for _, state := range []string{dispatch.JobStopped, dispatch.JobFailed, dispatch.JobCancelled} {
		r := foreman(t, dispatch.Job{State: dispatch.JobRunning}, dispatch.Job{State: state, Note: "the reason"})
		r.run(t, exitFailure, "jobs", "follow", "j1")
		contains(t, r.out, "j1 "+state, "the reason")
	}
}

func TestFollowInterrupted(t *testing.T) {
	t.Parallel()
	r := foreman(t, dispatch.Job{State: dispatch.JobRunning, Replay: &dispatch.Replay{}, Cursor: 3, Head: 9})
	ctx, cancel := context.WithCancel(t.Context())
	r.sleep = func(context.Context, time.Duration) error { cancel(); return context.Canceled }
	if code := run(ctx, []string{"replay", "--since", "1h"}, r.env); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	contains(t, r.err, "sluice: interrupted: job j1 goes on, watch it with `sluice jobs follow j1`")
}

func TestDistance(t *testing.T) {
	t.Parallel()
	done, total := distance(dispatch.Job{Replay: &dispatch.Replay{}, Cursor: 3, Head: 9, Scanned: 100})
	if done != 3 || total != 9 {
		t.Errorf("got %d of %d", done, total)
	}
	done, total = distance(dispatch.Job{Redrive: &dispatch.Redrive{}, Head: 9, Scanned: 5, Total: 7})
	if done != 5 || total != 7 {
		t.Errorf("got %d of %d", done, total)
	}
}

func TestLostJob(t *testing.T) {
	t.Parallel()
	r := newRig("")
	err := r.lostJob(t.Context(), dispatch.Job{ID: "j1"}, errors.New("no server"))
	contains(t, errorText{err}, "no server: job j1 goes on")
}

type errorText struct{ error }

func (e errorText) String() string { return e.Error() }
