package doctor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config"
	"sluice/config/value"
	"sluice/sinks"
)

func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// lines are the findings of a report, but for those that say that all is well.
func lines(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		if f.Severity != OK {
			b.WriteString(string(f.Severity) + " " + f.Check + " " + f.Subject + ": " + f.Message + " → " + f.Action + "\n")
		}
	}
	return b.String()
}

// TestFindings looks at what is wrong one at a time: what is said, and how bad it is.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		look func(r *Report)
		ok   bool
		want []string // nothing: no finding
	}{
		"all adds up": {func(r *Report) { r.checkConservation(dispatch.Conservation{Checked: noon()}) }, true, nil},
		"deliveries are lost": {func(r *Report) {
			r.checkConservation(dispatch.Conservation{Deliveries: 2, Checked: noon(), Since: noon(), Sinks: []dispatch.SinkDifference{
				{Sink: "a", Balance: dispatch.Balance{Entered: 9, Delivered: 4, Dead: 1, Retries: 2}},
			}})
		}, false, []string{"fault conservation a: 2 deliveries", "are nowhere", "entered 9 ≠ delivered 4 + dead 1", "retries 2"}},
		"deliveries twice": {func(r *Report) {
			r.checkConservation(dispatch.Conservation{Deliveries: 1, Sinks: []dispatch.SinkDifference{{Sink: "a", Balance: dispatch.Balance{Entered: 1, Delivered: 2}}}})
		}, false, []string{"-1 deliveries", "counted twice"}},
		"events are lost": {func(r *Report) { r.checkConservation(dispatch.Conservation{Events: 3}) }, false,
			[]string{"fault conservation events: 3 accepted events", "sluice replay"}},
		"a store that is tight":  {func(r *Report) { r.checkUsage(bus.Usage{Stored: 76, Limit: 100, Free: -1}) }, true, []string{"warning room", "76 %"}},
		"a store that is full":   {func(r *Report) { r.checkUsage(bus.Usage{Stored: 81, Limit: 100, Free: -1}) }, false, []string{"fault room", "507", "store.max_bytes"}},
		"a volume that is full":  {func(r *Report) { r.checkUsage(bus.Usage{Limit: 1 << 40, Free: 100 << 20}) }, false, []string{"100 MiB left"}},
		"a store without limits": {func(r *Report) { r.checkUsage(bus.Usage{Stored: 1 << 40, Free: -1}) }, true, nil},
		"dedup beyond retention": {func(r *Report) {
			c := &config.Config{}
			c.Dedup.Window, c.Store.Retain.Age = value.Duration(2*time.Hour), value.Duration(time.Hour)
			r.checkSettings(c)
		}, true, []string{"warning settings dedup.window", "2h0m0s"}},
		"sinks": {func(r *Report) {
			r.checkSinks([]dispatch.SinkStatus{
				{Name: "fine", State: dispatch.StateActive, Queued: 5, Backlog: 100},
				{Name: "held", State: dispatch.StatePaused, Backlog: 3},
				{Name: "idle", State: dispatch.StatePaused},
				{Name: "gone", State: dispatch.StateGone, Retries: 1},
				{Name: "sick", State: dispatch.StateBroken, Backlog: 7, LastOK: noon().Add(-time.Hour), LastError: "500"},
				{Name: "hiccup", State: dispatch.StateBroken, Backlog: 7, LastOK: noon().Add(-time.Second)},
				{Name: "out", State: dispatch.StateRemoved, Backlog: 2, DeadLetters: 4},
				{Name: "locked", State: dispatch.StateUnauthorized, Retries: 6, LastOK: noon().Add(-time.Hour), LastError: "answered 401"},
				{Name: "cut", State: dispatch.StateActive, Retries: 8, Connection: &sinks.Connection{Err: errors.New("no route"), Since: noon().Add(-time.Hour)}},
				{Name: "cut just now", State: dispatch.StateActive, Connection: &sinks.Connection{Err: errors.New("no route"), Since: noon().Add(-time.Second)}},
				{Name: "unused", State: dispatch.StateActive, Connection: &sinks.Connection{}},
			}, noon())
		}, true, []string{
			"held: it is paused, and 3 deliveries wait for it → sluice sinks resume held\n",
			"gone: it answered 410", "sick: its breaker is open and nothing has worked for 1h0m0s: 500; 7 deliveries",
			"locked: it refuses the credentials, and nothing has worked for 1h0m0s: answered 401; 6 deliveries wait for it → see `sluice sinks show locked`",
			"warning sinks cut: it has been disconnected for 1h0m0s: no route; 8 deliveries wait for it",
			"out: it is not in the config, and 2 deliveries wait", "removed_sinks: {out: dead_letter}", "dead letters out: dead letters that are kept: 4",
		}},
		"a broken subscription": {func(r *Report) { r.checkSubscriptions(map[string]string{"x": "match: no such thing"}, nil) }, false,
			[]string{"fault sinks sub.x: the subscription x was taken before", "no such thing → subscribe again with PUT /subscriptions/x, or end it with `sluice subscriptions rm x`"}},
		"a subscription with a token of yesterday": {func(r *Report) { r.checkSubscriptions(nil, map[string]time.Time{"x": noon()}) }, true,
			[]string{"warning sinks sub.x: the token of the subscription x was good until " + noon().UTC().Format(time.RFC3339) + ": its sink may refuse it → give it a new one with PUT /subscriptions/x"}},
		"what is dropped for a subscription that has ended": {func(r *Report) {
			r.checkSinks([]dispatch.SinkStatus{{Name: "sub.x", State: dispatch.StateRemoved, Backlog: 2}}, noon())
		}, true, nil},
		"a damaged pack": {func(r *Report) {
			r.add(storeFinding(bus.Fault{Stream: bus.Events, First: 5, Last: 5, Index: -1, Kind: bus.FaultDamaged, Detail: "it cannot be read", Repairable: true}, "do this"))
		}, false, []string{"fault store EVENTS: EVENTS 5: damaged: it cannot be read → do this; and check the disk"}},
		"packs of the backlog that are gone": {func(r *Report) {
			r.add(storeFinding(bus.Fault{Stream: bus.Backlog, First: 5, Last: 9, Index: -1, Kind: bus.FaultMissing, Detail: "they are gone"}, "do this"))
		}, true, []string{"warning store BACKLOG: BACKLOG 5-9: missing: they are gone → the server offers it again"}},
		"lost deliveries that came again": {func(r *Report) {
			r.checkLost([]dispatch.Job{{ID: "j", State: dispatch.JobDone, Note: "offered again: 7", Ended: noon()}}, noon())
		}, true, []string{"warning store job j: offered again: 7"}},
		"lost deliveries that are gone": {func(r *Report) {
			r.checkLost([]dispatch.Job{{ID: "j", State: dispatch.JobDone, Note: "not any more: 7", Gone: 7, Ended: noon()}}, noon())
		}, false, []string{"fault store job j: done: not any more: 7", "published again"}},
		"lost deliveries of long ago": {func(r *Report) {
			r.checkLost([]dispatch.Job{{ID: "j", State: dispatch.JobDone, Gone: 7, Ended: noon().Add(-48 * time.Hour)}}, noon())
		}, true, nil},
		"a mended file": {func(r *Report) {
			r.add(storeFinding(bus.Fault{Stream: bus.Events, Index: -1, Kind: bus.FaultMended, Detail: "made again"}, "do this"))
		}, true, []string{"warning store", "it is mended"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Report{OK: true}
			c.look(r)
			got := lines(r)
			if r.OK != c.ok || (len(c.want) == 0) != (got == "") {
				t.Errorf("ok is %v, findings:\n%s", r.OK, got)
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("the findings lack %q:\n%s", want, got)
				}
			}
			for _, not := range []string{"fine", "idle", "hiccup", "cut just now", "unused"} {
				if strings.Contains(got, " "+not+":") {
					t.Errorf("%s is fine:\n%s", not, got)
				}
			}
		})
	}
}

// TestStoreOfNonsense finds records that are whole and say nothing.
func TestStoreOfNonsense(t *testing.T) {
	t.Parallel()
	store := memlog.New(memlog.Options{})
	for _, name := range bus.StreamNames() {
		if _, err := store.Stream(name).Append(t.Context(), "a", [][]byte{[]byte("nonsense")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.PutState(t.Context(), "ledgers", []byte("{")); err != nil {
		t.Fatal(err)
	}
	r, err := Resting{Store: store, Repair: "do this", Now: time.Now()}.Report(t.Context())
	if err != nil || r.OK {
		t.Fatal(err, r)
	}
	got := lines(r)
	for _, want := range []string{"EVENTS 1.0: damaged: the record is not understood", "BACKLOG 1.0", "RETRIES 1.0", "DEADLETTERS 1.0", "what is settled is not known"} {
		if !strings.Contains(got, want) {
			t.Errorf("the findings lack %q:\n%s", want, got)
		}
	}
}

// TestRetentionPressure has events that go long before their time.
func TestRetentionPressure(t *testing.T) {
	t.Parallel()
	store := memlog.New(memlog.Options{})
	if _, err := store.Stream(bus.Events).Append(t.Context(), "", [][]byte{make([]byte, 1000)}); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{}
	c.Store.Retain = config.Retain{Age: value.Duration(72 * time.Hour), Size: 1000}
	r := &Report{OK: true}
	if err := r.checkRoom(t.Context(), store, c, time.Now().Add(time.Hour)); err != nil || !strings.Contains(lines(r), "a replay reaches back 1h0m0s, and not 72h0m0s") {
		t.Errorf("%v\n%s", err, lines(r))
	}
}
