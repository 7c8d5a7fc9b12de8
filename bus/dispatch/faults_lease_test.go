package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// leasing is a random history of a bus with a queue in groups, a sink that takes
// leases, and one that replies to it and to reports.
type leasing struct {
	*world
	job   *replying
	reply *replying
	end   *far

	taken map[string]string // tokens of the job; guarded by mu
	done  map[string]bool   // the messages that a consumer has acknowledged
}

func newLeasing(seed uint64) *leasing {
	w := &leasing{world: newWorld(seed), taken: map[string]string{}, done: map[string]bool{}, end: newFar(nil)}
	w.job = newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
		switch w.n("job "+d.Event.ID(), 6) {
		case 0:
			return sinks.Answer{}, sinks.Answered(503, nil)
		case 1:
			return sinks.Answer{Status: 200}, nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.taken["job/"+d.ID] = d.Ask.Lease.Token
		return sinks.Answer{Status: 202, Lease: time.Duration(1+w.draw("lease "+d.Event.ID(), 20)) * time.Second}, nil
	})
	w.reply = newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
		if w.n("reply "+d.Event.ID(), 5) == 0 {
			return sinks.Answer{}, errors.New("reset")
		}
		return sinks.Answer{Events: []bus.Event{typed(t0{}, d.Event.ID()+"-r", "end")}}, nil
	})
	return w
}

// t0 lets typed be called where no test is at hand: its events are always good.
type t0 struct{ testing.TB }

func (t0) Helper() {}

func (w *leasing) table(t *testing.T) dispatch.Table {
	most := func(o *dispatch.Options) {
		o.Lease = lasting(time.Hour)
		o.OnSuccess = "reply"
		o.Retry.MaxAttempts = 6
	}
	table := one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.MaxReceives = 8; q.Visibility = lasting(10 * time.Second) },
		func(o *dispatch.Options) { o.OrderBy = "subject" }), spec("job", w.job, most))
	end := byType(t, spec("end", w.end, nil))
	table.Sinks = append(table.Sinks, end.Sinks[0], spec("reply", w.reply, nil))
	table.Routes[0].To = []string{"q", "job"}
	table.Routes[0].Pattern = end.Routes[0].Pattern
	all := byType(t, spec("test.made", nil, nil))
	table.Routes[0].Pattern = all.Routes[0].Pattern
	table.Routes = append(table.Routes, end.Routes...)
	return table
}

// consume receives from the queue and does one thing or another with what it gets.
func (w *leasing) consume(ctx context.Context, d *dispatch.Dispatcher, who string) {
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		got, err := d.Receive(wait, "q", 1+w.n(who, 5), time.Duration(w.n(who, 8))*time.Second)
		cancel()
		if err != nil {
			return
		}
		for _, m := range got {
			<-time.After(time.Duration(w.n(who, 4000)) * time.Millisecond)
			switch w.n(who, 8) {
			case 0:
			case 1:
				d.Nack(ctx, time.Duration(w.n(who, 3))*time.Second, m.Receipt)
			case 2:
				d.Extend(ctx, time.Duration(1+w.n(who, 20))*time.Second, m.Receipt)
				fallthrough
			default:
				// A crash may keep the answer of one that was taken.
				w.ack(m)
				_ = d.Ack(ctx, m.Receipt)
			}
		}
	}
}

func (w *leasing) ack(messages ...dispatch.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		w.done[m.Event.ID()] = true
	}
}

// jobs ends and extends the leases of the function.
func (w *leasing) jobs(ctx context.Context, d *dispatch.Dispatcher) {
	for ctx.Err() == nil {
		<-time.After(time.Duration(100+w.n("ends", 3000)) * time.Millisecond)
		id, token := w.pick()
		switch w.n("ends", 6) {
		case 0:
			_, _ = d.ExtendLease(ctx, id, token, time.Duration(1+w.n("ends", 60))*time.Second)
		case 1:
			_ = d.EndLease(ctx, id, token, sinks.Answer{}, errors.New("no"))
		case 2:
			_ = d.EndLease(ctx, id, token, sinks.Answer{Events: []bus.Event{typed(t0{}, id, "end")}}, nil)
		default:
			_ = d.EndLease(ctx, id, token, sinks.Answer{Body: []byte("x")}, nil)
		}
	}
}

func (w *leasing) pick() (id, token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.taken) == 0 {
		return "none", ""
	}
	keys := slices.Sorted(maps.Keys(w.taken))
	key := keys[w.draw("pick", len(keys))]
	return key[len("job/"):], w.taken[key]
}

func (w *leasing) operate(t *testing.T, d *dispatch.Dispatcher) {
	switch w.n("operator", 6) {
	case 0:
		_ = d.Pause(t.Context(), "q", "")
	case 1, 2:
		_ = d.Resume(t.Context(), "q")
	case 3:
		_ = d.Reload(t.Context(), w.table(t))
	case 4:
		_, _ = d.Redrive(t.Context(), dispatch.Redrive{})
	case 5:
		_, _ = d.Replay(t.Context(), dispatch.Replay{Sinks: []string{"q"}})
	}
}

func (w *leasing) life(t *testing.T, store *memlog.Log, life int) {
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	m := newMortal(d)
	defer m.die()
	w.runs(m)
	defer w.runs(nil)
	if err := m.start(t.Context(), w.table(t)); err != nil {
		return
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+w.n("life", 40))*time.Second)
	defer cancel()
	for c := range 3 {
		all.Go(func() { w.consume(ctx, d, fmt.Sprint("consumer ", c)) })
	}
	all.Go(func() { w.jobs(ctx, d) })
	for p := range 2 {
		all.Go(func() {
			who := fmt.Sprintf("l%d.p%d", life, p)
			for i := range 4 {
				id := fmt.Sprintf("%s.%d", who, i)
				_, err := d.Publisher("test").Publish(ctx, keyed(t, id, strconv.Itoa(w.n(who, 2))), keyed(t, id+"+", strconv.Itoa(w.n(who, 2))))
				if err == nil {
					w.mu.Lock()
					w.acked[id] = true
					w.mu.Unlock()
				}
				<-time.After(time.Duration(w.n(who, 3000)) * time.Millisecond)
				if p == 0 && w.n(who, 3) == 0 {
					w.operate(t, d)
				}
			}
		})
	}
	all.Wait()
	w.mu.Lock()
	crashed := w.calm()
	w.mu.Unlock()
	if !crashed {
		for sink, b := range d.Balances() {
			if b.Lost() != 0 {
				t.Errorf("sink %s: %+v differ by %d", sink, b, b.Lost())
			}
		}
	}
}

// TestNothingIsLostWithLeases is TestNothingIsLostWhereverItCrashes for what is
// fetched, leased, replied to and reported.
func TestNothingIsLostWithLeases(t *testing.T) {
	t.Parallel()
	histories(t, max(seeds()/3, 1), leasingHistory)
}

func leasingHistory(t *testing.T, seed uint64, seen *crashPoints) {
	w := newLeasing(seed)
	w.seen = seen
	store := memlog.New(memlog.Options{Hook: w.hook})
	for life := range 3 {
		w.arm(400)
		w.life(t, store, life)
		store = store.Restart()
	}
	w.arm(0)
	d := start(t, store, w.table(t))
	defer d.stop()
	_ = d.Resume(t.Context(), "q")
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			wait, stop := context.WithTimeout(ctx, 5*time.Second)
			got, err := d.Receive(wait, "q", 10, 0)
			stop()
			if err != nil {
				return
			}
			w.ack(got...)
			d.Ack(ctx, receipts(got)...)
		}
	})
	d.rest(4 * time.Hour)
	cancel()
	all.Wait()
	letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 1e6)
	if err != nil {
		t.Fatal(err)
	}
	dead := map[string]bool{}
	for _, l := range letters {
		dead[l.Sink+"/"+l.Event.ID()] = true
	}
	for id := range w.acked {
		if !w.done[id] && !dead["q/"+id] {
			t.Errorf("seed %d: message %s was accepted, and never acknowledged", seed, id)
		}
		if w.job.times(id) == 0 && !dead["job/"+id] {
			t.Errorf("seed %d: event %s never reached the job", seed, id)
		}
	}
	if n := d.Leases(); n != 0 {
		t.Errorf("seed %d: %d leases are left", seed, n)
	}
}
