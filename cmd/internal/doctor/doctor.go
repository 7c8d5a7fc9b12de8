// Package doctor looks for what is wrong with a bus, and says what each finding means
// and what to do about it: over a bus that runs, or over the store of one that does
// not. It changes nothing; what mends the store is bus.Checker.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	OK      Severity = "ok"
	Warning Severity = "warning" // it works, and somebody should look
	Bad     Severity = "fault"   // something was lost, or will be refused
)

// Finding is what one check found.
type Finding struct {
	Severity Severity   `json:"severity"`
	Check    string     `json:"check"`             // one of Checks
	Subject  string     `json:"subject,omitempty"` // the sink, stream or setting it is about
	Message  string     `json:"message"`
	Action   string     `json:"action,omitempty"` // what to do; a command where there is one
	Fault    *bus.Fault `json:"fault,omitempty"`  // of the store
}

// Checks are the names of what is looked at.
func Checks() []string {
	return []string{"conservation", "store", "sinks", "dead letters", "room", "settings", "clock"}
}

// Report is what a look came to. Each check that found nothing has one Finding that
// says so.
type Report struct {
	OK       bool      `json:"ok"` // no finding is a fault
	Checked  time.Time `json:"checked"`
	Findings []Finding `json:"findings"`
}

// maxFaults is how many faults of a store are listed.
const maxFaults = 200

func (r *Report) add(f Finding) {
	if f.Severity == Bad {
		r.OK = false
	}
	r.Findings = append(r.Findings, f)
}

func (r *Report) bad(check, subject, action, format string, args ...any) {
	r.add(Finding{Severity: Bad, Check: check, Subject: subject, Message: fmt.Sprintf(format, args...), Action: action})
}

func (r *Report) warn(check, subject, action, format string, args ...any) {
	r.add(Finding{Severity: Warning, Check: check, Subject: subject, Message: fmt.Sprintf(format, args...), Action: action})
}

// fine says so when a check has found nothing.
func (r *Report) fine(check, format string, args ...any) {
	for _, f := range r.Findings {
		if f.Check == check {
			return
		}
	}
	r.add(Finding{Severity: OK, Check: check, Message: fmt.Sprintf(format, args...)})
}

var errEnough = errors.New("enough")

// checkStore reads all of a store.
func (r *Report) checkStore(ctx context.Context, store bus.Log, repair string) error {
	n := 0
	err := dispatch.CheckStore(ctx, store, func(f bus.Fault) error {
		if n++; n > maxFaults {
			return errEnough
		}
		r.add(storeFinding(f, repair))
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		r.bad("store", "", "", "there are more than %d faults: only the first are listed", maxFaults)
	case ctx.Err() != nil:
		r.warn("store", "", "stop the server and run `sluice doctor --dir DIR`", "the store is too large to be read whole in the time there was")
	case err != nil:
		return fmt.Errorf("check the store: %w", err)
	}
	r.fine("store", "every record can be read, and none is missing as far as can be told")
	return nil
}

// storeFinding says what a fault of the store means.
func storeFinding(f bus.Fault, repair string) Finding {
	found := Finding{Severity: Bad, Check: "store", Subject: f.Stream, Message: f.String(), Fault: &f}
	switch f.Kind {
	case bus.FaultMissing:
		found.Action = "check the disk"
		if f.Stream == bus.Backlog || f.Stream == bus.Retries {
			found.Severity = Warning
			found.Action = "the server offers it again from the retained events, at its next start at the latest; check the disk"
		}
	case bus.FaultMended:
		found.Severity = Warning
		found.Action = "it is mended; check the disk"
	case bus.FaultLost, bus.FaultCut:
		found.Action = "check the disk; events that publishers still have can be published again"
	default:
		found.Action = "check the disk"
	}
	if f.Repairable {
		found.Action = repair + "; and check the disk"
	}
	return found
}

// The shares of the store's limit from which on there is little room, and none for
// new events.
const (
	tight   = 0.75
	refuses = 0.80
	lowFree = 256 << 20
)

// checkRoom looks at how full the store is, and at whether events go before their time.
func (r *Report) checkRoom(ctx context.Context, store bus.Log, c *config.Config, now time.Time) error {
	info, err := store.Stream(bus.Events).Info(ctx)
	if err != nil {
		return err
	}
	r.checkUsage(store.Usage())
	if c != nil && info.Packs > 0 {
		age, size := time.Duration(c.Store.Retain.Age), int64(c.Store.Retain.Size)
		if kept := now.Sub(info.FirstTime); size > 0 && int64(info.Bytes) >= size/20*19 && age > 0 && kept < age/2 {
			r.warn("room", "store.retain", "raise store.retain.size, or lower store.retain.age to what is true",
				"events are removed since they are too many: a replay reaches back %s, and not %s", kept.Round(time.Second), age)
		}
	}
	r.fine("room", "%d MiB stored, and room for more", store.Usage().Stored>>20)
	return nil
}

func (r *Report) checkUsage(u bus.Usage) {
	const action = "clear the backlog (`sluice sinks ls` shows whose), lower store.retain, or raise store.max_bytes"
	if u.Limit > 0 {
		share := float64(u.Stored) / float64(u.Limit)
		switch {
		case share >= refuses:
			r.bad("room", "store.max_bytes", action, "the store holds %.0f %% of what it may: publishers get 507, and what is accepted is still delivered", share*100)
		case share >= tight:
			r.warn("room", "store.max_bytes", action, "the store holds %.0f %% of what it may; from 80 %% on publishers get 507", share*100)
		}
	}
	if u.Free >= 0 && u.Free < lowFree {
		r.bad("room", "volume", "make room on the volume of the store", "the volume has %d MiB left: the store stops taking events before it is full", u.Free>>20)
	}
}

// skewed is how far clocks may differ.
const skewed = time.Minute

// checkClock compares the clock with the newest record of each stream.
func (r *Report) checkClock(ctx context.Context, store bus.Log, now time.Time) error {
	for _, name := range bus.StreamNames() {
		s := store.Stream(name)
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		if info.Packs == 0 {
			continue
		}
		last, err := s.Get(ctx, info.Last)
		if errors.Is(err, bus.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if ahead := last.Time.Sub(now); ahead > skewed {
			r.bad("clock", name, "set the clock, with NTP for instance; retries and retention wait for the times that are stored",
				"the newest record was stored %s in the future: the clock was ahead then, or is behind now", ahead.Round(time.Second))
		}
	}
	r.fine("clock", "nothing that is stored lies in the future")
	return nil
}
