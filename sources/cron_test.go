package sources_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

func cronSettings(schedule string, change ...func(*sources.Cron)) *sources.Cron {
	s := sources.NewCron()
	s.Schedule = schedule
	for _, c := range change {
		c(s)
	}
	return s
}

func catchUp(policy string) func(*sources.Cron) { return func(s *sources.Cron) { s.CatchUp = policy } }

// runFor runs a source in a bubble for a while, and stops it.
func runFor(t *testing.T, src sources.Source, pub bus.Publisher, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := src.Run(ctx, pub); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// scheduled are the times of events as minutes and seconds since the bubble's
// beginning, with a + on those that were caught up.
func scheduled(t *testing.T, events []bus.Event) string {
	t.Helper()
	var all []string
	for _, e := range events {
		mark := ""
		if strings.Contains(string(e.Data()), `"trigger":"catch_up"`) {
			mark = "+"
		}
		since := e.Time().Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
		all = append(all, fmt.Sprintf("%s%s", since, mark))
	}
	return strings.Join(all, " ")
}

// TestCronTicks is what the event of a tick looks like, and when it comes.
func TestCronTicks(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		pub := &sourcetest.Publisher{}
		src := h.Open(t, cronSettings("cron(0/10 * * * ? *)", func(s *sources.Cron) {
			s.Subject, s.Data = "nightly", json.RawMessage(`{"report": "weekly", "n": 1.10}`)
		}))
		runFor(t, src, pub, 25*time.Minute)
		if got := scheduled(t, pub.Stored()); got != "10m0s 20m0s" {
			t.Fatalf("ticks at %s", got)
		}
		e := pub.Stored()[1]
		want := `{"schedule":"test","scheduled":"2000-01-01T00:20:00Z","actual":"2000-01-01T00:20:00Z","trigger":"schedule","report": "weekly", "n": 1.10}`
		if string(e.Data()) != want {
			t.Errorf("data %s\nwant %s", e.Data(), want)
		}
		if e.Source() != "cron/test" || e.Type() != "sluice.cron.tick" || e.Subject() != "nightly" || e.Get("time") != "2000-01-01T00:20:00Z" || len(e.ID()) != 32 {
			t.Errorf("the event is %s", e.AppendJSON(nil))
		}
		ticks := src.(sources.Ticker).Ticks()
		if !ticks.Last.Equal(e.Time()) || !ticks.Next.Equal(e.Time().Add(10*time.Minute)) || ticks.Dropped != 0 {
			t.Errorf("ticks are %+v", ticks)
		}
	})
	if h.Observed()[sources.Accepted] != 2 || h.Reported() != nil {
		t.Errorf("observed %v, reported %v", h.Observed(), h.Reported())
	}
}

// TestCronCatchUp stops a schedule for a while: what is up to a minute late fires in
// any case, and catch_up decides about the rest.
func TestCronCatchUp(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		down   time.Duration
		change func(*sources.Cron)
		want   string
	}{
		{"a short stop costs nothing", 40 * time.Second, catchUp("none"), "10m0s 20m0s 30m0s"},
		{"none", 45 * time.Minute, catchUp("none"), "10m0s 20m0s 1h10m0s"},
		{"one", 45 * time.Minute, catchUp("one"), "10m0s 20m0s 1h0m0s+ 1h10m0s"},
		{"all", 45 * time.Minute, catchUp("all"), "10m0s 20m0s 30m0s+ 40m0s+ 50m0s+ 1h0m0s+ 1h10m0s"},
		{"all, bounded", 45 * time.Minute, func(s *sources.Cron) { s.CatchUp, s.CatchUpMax = "all", 2 }, "10m0s 20m0s 50m0s+ 1h0m0s+ 1h10m0s"},
		{"a year", 366 * 24 * time.Hour, func(s *sources.Cron) { s.CatchUp, s.CatchUpMax = "all", 2 }, "10m0s 20m0s 8784h0m0s+ 8784h10m0s+ 8784h20m0s 8784h30m0s"},
		{"another schedule has missed nothing", 45 * time.Minute, func(s *sources.Cron) { s.CatchUp, s.Schedule = "all", "cron(0/15 * * * ? *)" }, "10m0s 20m0s 1h15m0s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := sourcetest.NewHost(t)
			synctest.Test(t, func(t *testing.T) {
				pub := &sourcetest.Publisher{}
				runFor(t, h.Open(t, cronSettings("cron(0/10 * * * ? *)")), pub, 29*time.Minute+30*time.Second)
				if row.down == 40*time.Second {
					// From 29:30 to 30:10, over the tick at 30:00.
					<-time.After(row.down)
					runFor(t, h.Open(t, cronSettings("cron(0/10 * * * ? *)", row.change)), pub, time.Minute)
				} else {
					<-time.After(row.down - 10*time.Minute)
					runFor(t, h.Open(t, cronSettings("cron(0/10 * * * ? *)", row.change)), pub, 11*time.Minute)
				}
				if got := scheduled(t, pub.Stored()); got != row.want {
					t.Errorf("ticks at %s\n    want %s", got, row.want)
				}
			})
		})
	}
}

// TestCronCrash loses the state of what has fired: the ticks fire again, with the
// ids they had.
func TestCronCrash(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		settings := cronSettings("rate(1 minute)", catchUp("all"))
		pub := &sourcetest.Publisher{}
		runFor(t, h.Open(t, settings), pub, 90*time.Second)
		h.Fail(errors.New("the disk is away"))
		runFor(t, h.Open(t, settings), pub, 2*time.Minute)
		if h.Reported() == nil || !strings.Contains(h.Reported().Error(), "the disk is away") {
			t.Errorf("reported %v", h.Reported())
		}
		h.Fail(nil)
		runFor(t, h.Open(t, settings), pub, time.Minute)
		if h.Reported() != nil {
			t.Errorf("reported %v", h.Reported())
		}
		if got := scheduled(t, pub.Stored()); got != "1m0s 2m0s 3m0s 2m0s+ 3m0s 4m0s" {
			t.Errorf("ticks at %s", got)
		}
		ids := map[string]string{}
		for _, e := range pub.Stored() {
			if at, known := ids[e.ID()]; known && at != e.Get("time") {
				t.Errorf("%s and %s have the same id", at, e.Get("time"))
			}
			ids[e.ID()] = e.Get("time")
		}
		if len(ids) != 4 {
			t.Errorf("%d ids for 4 ticks", len(ids))
		}
	})
}

// TestCronForget: of the time in which the source was not in the config no tick fires,
// whatever catch_up says.
func TestCronForget(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		settings := cronSettings("rate(1 minute)", catchUp("all"))
		pub := &sourcetest.Publisher{}
		src := h.Open(t, settings)
		runFor(t, src, pub, 90*time.Second)
		if err := src.(sources.Forgetter).Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Minute) // of the bubble's clock
		runFor(t, h.Open(t, settings), pub, time.Minute)
		if got := scheduled(t, pub.Stored()); got != "1m0s 12m0s" {
			t.Errorf("ticks at %s", got)
		}
	})
}

// TestCronSavesLate: the state that could not be saved is saved as soon as it
// can be, tick or no tick.
func TestCronSavesLate(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		pub := &sourcetest.Publisher{Before: func(context.Context) error { h.Fail(errors.New("no")); return nil }}
		settings := cronSettings("cron(1 0 1 1 ? *)", catchUp("all"))
		go func() { <-time.After(70 * time.Second); h.Fail(nil) }()
		runFor(t, h.Open(t, settings), pub, 2*time.Minute)
		runFor(t, h.Open(t, settings), pub, time.Minute)
		if got := scheduled(t, pub.Stored()); got != "1m0s" {
			t.Errorf("ticks at %s", got)
		}
	})
}

// TestCronClock sets the clock: a tick that fired does not fire again, and what the
// clock jumps over was missed.
func TestCronClock(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		jump   time.Duration
		policy string
		want   string
	}{
		{"an hour back", -time.Hour, "all", "10m0s 20m0s 30m0s"},
		{"seconds back", -20 * time.Second, "all", "10m0s 20m0s 30m0s 40m0s 50m0s 1h0m0s 1h10m0s 1h20m0s 1h30m0s"},
		{"an hour forward", time.Hour, "all", "10m0s 20m0s 30m0s+ 40m0s+ 50m0s+ 1h0m0s+ 1h10m0s+ 1h20m0s 1h30m0s 1h40m0s 1h50m0s 2h0m0s 2h10m0s 2h20m0s 2h30m0s"},
		{"an hour forward, none", time.Hour, "none", "10m0s 20m0s 1h20m0s 1h30m0s 1h40m0s 1h50m0s 2h0m0s 2h10m0s 2h20m0s 2h30m0s"},
		{"years back: the clock was wrong before", -50 * 24 * time.Hour, "all",
			"10m0s 20m0s -1199h30m0s -1199h20m0s -1199h10m0s -1199h0m0s -1198h50m0s -1198h40m0s -1198h30m0s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := sourcetest.NewHost(t)
			synctest.Test(t, func(t *testing.T) {
				pub := &sourcetest.Publisher{}
				settings := cronSettings("cron(0/10 * * * ? *)", catchUp(row.policy))
				var mu sync.Mutex
				offset := time.Duration(0)
				settings.SetClock(func() time.Time {
					mu.Lock()
					defer mu.Unlock()
					return time.Now().Round(0).Add(offset)
				}, sources.RealWait)
				go func() {
					<-time.After(20*time.Minute + 5*time.Second)
					mu.Lock()
					offset = row.jump
					mu.Unlock()
				}()
				runFor(t, h.Open(t, settings), pub, 91*time.Minute)
				if got := scheduled(t, pub.Stored()); got != row.want {
					t.Errorf("ticks at %s\n    want %s", got, row.want)
				}
			})
		})
	}
}

// TestCronNodes runs one schedule twice at once, as two nodes and a reload do: each
// tick has one id, and once one has fired it the other does not.
func TestCronNodes(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		pub := &sourcetest.Publisher{}
		var nodes sync.WaitGroup
		<-time.After(3 * time.Second)
		for _, behind := range []time.Duration{0, 300 * time.Millisecond} {
			settings := cronSettings("rate(10 seconds)")
			settings.SetClock(func() time.Time { return time.Now().Round(0).Add(-behind) }, sources.RealWait)
			src := h.Open(t, settings)
			nodes.Go(func() { runFor(t, src, pub, 65*time.Second) })
		}
		nodes.Wait()
		if got := scheduled(t, pub.Stored()); got != "10s 20s 30s 40s 50s 1m0s" {
			t.Errorf("ticks at %s", got)
		}
	})
}

// TestCronJitter delays each tick by its own part of the window, the same after a
// restart, and keeps them in order.
func TestCronJitter(t *testing.T) {
	t.Parallel()
	h, other := sourcetest.NewHost(t), sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		delays := func(h *sourcetest.Host, stops int) (all []time.Duration) {
			pub := &sourcetest.Publisher{}
			began := time.Now()
			settings := cronSettings("rate(1 minute)", func(s *sources.Cron) { s.Jitter = 1 << 40 })
			settings.SetClock(func() time.Time { return time.Unix(1e9, 0).Add(time.Since(began)).UTC() }, sources.RealWait)
			for range stops {
				runFor(t, h.Open(t, settings), pub, 20*time.Minute/time.Duration(stops))
			}
			for _, e := range pub.Stored() {
				var data struct{ Scheduled, Actual time.Time }
				if err := json.Unmarshal(e.Data(), &data); err != nil {
					t.Fatal(err)
				}
				all = append(all, data.Actual.Sub(data.Scheduled))
			}
			return all
		}
		once, often := delays(h, 1), delays(other, 7)
		if len(once) < 19 || fmt.Sprint(once) != fmt.Sprint(often) {
			t.Errorf("delays %v, with restarts %v", once, often)
		}
		different := map[time.Duration]bool{}
		for _, d := range once {
			different[d] = true
			if d < 0 || d >= time.Minute {
				t.Errorf("a delay of %s", d)
			}
		}
		if len(different) < len(once)/2 {
			t.Errorf("the delays are all alike: %v", once)
		}
	})
}

// TestCronBounds keeps to start and end; a rate counts from start.
func TestCronBounds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ schedule, start, end, want string }{
		{"cron(0/10 * * * ? *)", "2000-01-01T00:20:00", "2000-01-01T00:40:00Z", "20m0s 30m0s 40m0s"},
		{"rate(10 minutes)", "2000-01-01T01:13:00+01:00", "", "13m0s 23m0s 33m0s 43m0s 53m0s"},
		{"rate(1 hour)", "", "2000-01-01T00:30:00", ""},
		{"at(2000-01-01T00:05:07)", "", "", "5m7s"},
	} {
		h := sourcetest.NewHost(t)
		synctest.Test(t, func(t *testing.T) {
			pub := &sourcetest.Publisher{}
			src := h.Open(t, cronSettings(row.schedule, func(s *sources.Cron) { s.Start, s.End = row.start, row.end }))
			runFor(t, src, pub, 55*time.Minute)
			if got := scheduled(t, pub.Stored()); got != row.want {
				t.Errorf("%s: ticks at %s, want %s", row.schedule, got, row.want)
			}
		})
	}
}

// TestCronTrigger fires by hand: at once, with an id of its own, and only while the
// source runs.
func TestCronTrigger(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	synctest.Test(t, func(t *testing.T) {
		pub := &sourcetest.Publisher{}
		src := h.Open(t, cronSettings("rate(1 minute)"))
		trigger := src.(sources.Trigger)
		if _, err := trigger.Trigger(t.Context()); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("before Run: %v", err)
		}
		go func() {
			<-time.After(time.Minute) // at the very moment of a tick
			synctest.Wait()
			e, err := trigger.Trigger(t.Context())
			if err != nil || !strings.Contains(string(e.Data()), `"trigger":"manual"`) {
				t.Errorf("%v: %s", err, e.Data())
			}
		}()
		runFor(t, src, pub, 150*time.Second)
		stored := pub.Stored()
		if got := scheduled(t, stored); got != "1m0s 1m0s 2m0s" || stored[0].ID() == stored[1].ID() {
			t.Errorf("ticks at %s", got)
		}
		if _, err := trigger.Trigger(t.Context()); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("after Run: %v", err)
		}
	})
}

// TestCronState is a state that cannot be read: garbage begins afresh, a store that
// does not answer is an error.
func TestCronState(t *testing.T) {
	t.Parallel()
	h := sourcetest.NewHost(t)
	if err := h.State().Put(t.Context(), "ticks", []byte("{")); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		pub := &sourcetest.Publisher{}
		runFor(t, h.Open(t, cronSettings("rate(1 minute)")), pub, 90*time.Second)
		if got := scheduled(t, pub.Stored()); got != "1m0s" {
			t.Errorf("ticks at %s", got)
		}
	})
	env := h.Env()
	env.State = broken{}
	src, err := cronSettings("rate(1 minute)").Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Run(t.Context(), &sourcetest.Publisher{}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("Run: %v", err)
	}
}

type broken struct{ sources.State }

func (broken) Get(context.Context, string) ([]byte, error) { return nil, bus.ErrUnavailable }

// TestCronValidate is what is wrong with settings, by key.
func TestCronValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		change func(*sources.Cron)
		key    string
		want   string
	}{
		{func(s *sources.Cron) { s.Schedule = "" }, "schedule", "is missing"},
		{func(s *sources.Cron) { s.Schedule = "cron(0 25 * * ? *)" }, "schedule", `hours (character 8): "25" is not from 0 to 23`},
		{func(s *sources.Cron) { s.Timezone = "Berlin" }, "timezone", "write a name of the IANA database"},
		{func(s *sources.Cron) { s.Start = "tomorrow" }, "start", "is not a time"},
		{func(s *sources.Cron) { s.End = "2026-01-01" }, "end", "is not a time"},
		{func(s *sources.Cron) { s.Start, s.End = "2026-01-02T00:00:00", "2026-01-01T00:00:00" }, "end", "before start"},
		{func(s *sources.Cron) { s.CatchUpMax = 0 }, "catch_up_max", "from 1 to 100000"},
		{func(s *sources.Cron) { s.Jitter = 1 << 60 }, "jitter", "from 0 to 24h"},
		{func(s *sources.Cron) { s.Type = "" }, "type", "empty"},
		{func(s *sources.Cron) { s.Data = json.RawMessage(`[1]`) }, "data", "is no mapping"},
		{func(s *sources.Cron) { s.Data = json.RawMessage(`null`) }, "data", "is no mapping"},
		{func(s *sources.Cron) { s.Data = json.RawMessage(`{"actual": 1}`) }, "data", "has the key actual"},
	} {
		faults := cronSettings("0 0 * * *", row.change).Validate()
		if len(faults) != 1 || faults[0].Key != row.key || !strings.Contains(faults[0].Msg, row.want) {
			t.Errorf("%v, want %s: %s", faults, row.key, row.want)
		}
	}
	if faults := cronSettings("0 0 * * *", func(s *sources.Cron) { s.Data = json.RawMessage(`{}`) }).Validate(); len(faults) > 0 {
		t.Error(faults)
	}
}

// TestCronWarnings is about schedules that are valid and never fire.
func TestCronWarnings(t *testing.T) {
	t.Parallel()
	now := mustTime(t, "2026-06-01T00:00")
	for expr, want := range map[string]string{
		"cron(0 0 31 2 ? *)":      "never fires: there is no such time",
		"cron(0 0 1 1 ? 2020)":    "never fires again: it names 2020-01-01T00:00:00Z alone",
		"cron(0 0 1 * ? 2020)":    "never fires again: the times it names are over",
		"at(2026-01-01T00:00:00)": "never fires again: it names 2026-01-01T00:00:00Z alone",
		"cron(0 0 29 2 ? *)":      "",
	} {
		var got string
		for _, f := range cronSettings(expr).Warnings(now) {
			got += f.Key + ": " + f.Msg
		}
		if want == "" && got != "" || want != "" && !strings.HasPrefix(got, "schedule: "+want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// cronUpstream is a clock that goes on when the suite sends something: each event
// is the next tick.
type cronUpstream struct {
	sources.Source
	host *sourcetest.Host
	turn chan struct{} // holds a token while somebody sends

	mu    sync.Mutex
	now   time.Time
	moved chan struct{}        // closed when the clock goes on
	ids   map[time.Time]string // of the suite, by the time of the tick
}

// Run gives the events the ids of the suite.
func (u *cronUpstream) Run(ctx context.Context, pub bus.Publisher) error {
	return u.Source.Run(ctx, renaming{u, pub})
}

type renaming struct {
	u    *cronUpstream
	next bus.Publisher
}

func (r renaming) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	renamed := make([]bus.Event, len(events))
	for i, e := range events {
		r.u.mu.Lock()
		id := r.u.ids[e.Time().UTC()]
		r.u.mu.Unlock()
		var err error
		if renamed[i], err = e.With(bus.Attr{Name: "id", Value: id}); err != nil {
			return make([]bus.Result, len(events)), err
		}
	}
	return r.next.Publish(ctx, renamed...)
}

func (u *cronUpstream) time() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now
}

func (u *cronUpstream) wait(ctx context.Context, d time.Duration) error {
	u.mu.Lock()
	until := u.now.Add(d)
	u.mu.Unlock()
	for {
		u.mu.Lock()
		moved, over := u.moved, !u.now.Before(until)
		u.mu.Unlock()
		if over {
			return ctx.Err()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send lets a second pass, and waits until its tick is settled.
func (u *cronUpstream) send(ctx context.Context, e bus.Event) error {
	select {
	case <-u.Source.(sources.Readier).Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	u.mu.Lock()
	u.now = u.now.Add(time.Second)
	tick := u.now
	u.ids[tick] = e.ID()
	close(u.moved)
	u.moved = make(chan struct{})
	u.mu.Unlock()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		var state struct{ Settled time.Time }
		text, err := u.host.State().Get(ctx, "ticks")
		if err == nil && json.Unmarshal(text, &state) == nil && !state.Settled.Before(tick) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestCronContract(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		u := &cronUpstream{
			host: sourcetest.NewHost(t), turn: make(chan struct{}, 1), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			moved: make(chan struct{}), ids: map[time.Time]string{},
		}
		settings := cronSettings("rate(1 second)", catchUp("all"))
		settings.SetClock(u.time, u.wait)
		u.Source = u.host.Open(t, settings)
		return &sourcetest.Subject{Source: u, Send: u.send}
	})
}
