package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// isolation compares a sink beside a healthy one with a sink beside one that
// hangs, at twice the rate of latency. Delivery is that of the healthy sink alone.
func (r *runner) isolation(ctx context.Context) error {
	for round := range r.Rounds {
		for _, hangs := range []bool{false, true} {
			m := Measure{Load: "beside a healthy sink", System: sluiceName, Round: round + 1}
			if hangs {
				m.Load = fmt.Sprintf("beside one that hangs %v", r.Hang)
			}
			if err := r.next(ctx, "%s, round %d of %d", m.Load, m.Round, r.Rounds); err != nil {
				return err
			}
			m, err := r.neighbours(ctx, m, hangs)
			if err != nil {
				return err
			}
			r.report.Measures = append(r.report.Measures, m)
		}
	}
	return nil
}

func isolationSteps(s *Settings) int { return 2 * s.Rounds }

func (r *runner) neighbours(ctx context.Context, m Measure, hangs bool) (Measure, error) {
	books := newTally(2, 0)
	f, err := newFarm(books, 2)
	if err != nil {
		return m, err
	}
	defer f.close()
	if hangs {
		f.sinks[1].hangFor(r.Hang)
	}
	server, err := r.startBus(ctx, busOf{load: m.Load, farm: f})
	if err != nil {
		return m, err
	}
	defer server.stop()
	t := trial{
		// Long enough for the sink to have hung on everything that it can take.
		server: server.process, bus: true, farm: f, warmup: r.Warmup, during: r.Duration + r.Hang, after: f.sinks[1].release,
		load: &load{connections: r.Connections, size: r.Size, rate: 2 * r.Rate, tally: books},
	}
	m, err = t.run(ctx, m)
	m.Delivery = f.sinks[0].ages.latency()
	return m, err
}

// kill9 kills the bus under load at random moments. The events of all rounds are
// counted together, because those of one may arrive in the next.
func (r *runner) kill9(ctx context.Context) error {
	books := newTally(2, r.Outstanding)
	f, err := newFarm(books, 2)
	if err != nil {
		return err
	}
	defer f.close()
	if err := r.next(ctx, "start"); err != nil {
		return err
	}
	server, err := r.startBus(ctx, busOf{load: "killed", farm: f})
	if err != nil {
		return err
	}
	defer server.stop()
	var l *load
	for round := range r.Rounds {
		if err := r.next(ctx, "kill %d of %d", round+1, r.Rounds); err != nil {
			return err
		}
		l = &load{address: server.address, connections: r.Connections, size: r.Size, tally: books}
		m := Measure{Load: "until the kill", System: sluiceName, Round: round + 1}
		from := snapshot{at: books.now(), accepted: books.accepted.Load(), arrived: books.arrived.Load()}
		l.begin(ctx)
		pause(ctx, r.Duration/10+rand.N(r.Duration))
		for books.accepted.Load() == from.accepted && ctx.Err() == nil && server.alive() == nil {
			pause(ctx, time.Millisecond) // it has not begun
		}
		m.PeakBytes = memory(server.pid()).peak
		server.kill()
		m.between(from, snapshot{at: books.now(), accepted: books.accepted.Load(), arrived: books.arrived.Load()})
		l.end()
		if err := server.start(ctx); err != nil {
			return err
		}
		m.ReadySeconds = server.ready.Seconds()
		r.report.Measures = append(r.report.Measures, m)
	}
	if err := r.next(ctx, "the rest"); err != nil {
		return err
	}
	t := trial{server: server.process, farm: f, load: l}
	t.settle(ctx)
	m := Measure{Load: "all rounds", System: sluiceName}
	m.account(l)
	m.Fault = "" // that connections break is the point
	r.report.Measures = append(r.report.Measures, m)
	return ctx.Err()
}

func kill9Steps(s *Settings) int { return s.Rounds + 2 }

// impatient are the options of a sink that is looked after again soon.
const impatient = ", retry: {initial: 200ms, max: 2s}, breaker: {failures: 5, probe_after: 200ms, probe_max: 1s}"

// backlog lets events pile up for a dead sink, brings it back, and kills the bus
// when all was delivered, to start it again with everything still retained.
func (r *runner) backlog(ctx context.Context) error {
	direct := bout{load: "direct", system: sluiceName, sinks: 1, connections: r.Connections, outstanding: r.Outstanding}
	for round := range r.Rounds {
		direct.round = round + 1
		if err := r.measure(ctx, direct); err != nil {
			return err
		}
		if err := r.pileUp(ctx, round+1); err != nil {
			return err
		}
	}
	r.report.compare(side{"drain", sluiceName}, side{direct.load, sluiceName}, deliveryRate())
	return nil
}

func backlogSteps(s *Settings) int { return 4 * s.Rounds }

func (r *runner) pileUp(ctx context.Context, round int) error {
	if err := r.next(ctx, "%d deliveries for a dead sink, round %d of %d", r.Events, round, r.Rounds); err != nil {
		return err
	}
	books := newTally(1, 0)
	f, err := newFarm(books, 1)
	if err != nil {
		return err
	}
	defer f.close()
	f.sinks[0].down.Store(true)
	server, err := r.startBus(ctx, busOf{load: "pile up", farm: f, options: impatient})
	if err != nil {
		return err
	}
	defer server.stop()
	t := trial{server: server.process, bus: true, farm: f, load: &load{
		address: server.address, connections: 8, size: r.Size, batch: batchEvents, most: int64(r.Events), tally: books,
	}}
	from, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	t.load.begin(ctx)
	t.load.wait()
	if err := server.untilSettled(ctx); err != nil {
		return err
	}
	piled, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	m := Measure{Load: "pile up", System: sluiceName, Round: round, PeakBytes: memory(server.pid()).peak}
	m.between(from, piled)
	r.report.Measures = append(r.report.Measures, m)
	if err := r.drain(ctx, &t, round); err != nil {
		return err
	}
	return r.restart(ctx, server, round)
}

// drain brings the sink back. The clock runs from its first delivery to its last.
func (r *runner) drain(ctx context.Context, t *trial, round int) error {
	if err := r.next(ctx, "drain, round %d of %d", round, r.Rounds); err != nil {
		return err
	}
	books := t.load.tally
	books.recording.Store(false)
	t.farm.sinks[0].down.Store(false)
	for books.arrived.Load() == 0 && ctx.Err() == nil && t.server.alive() == nil {
		pause(ctx, time.Millisecond)
	}
	from, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	t.settle(ctx)
	to, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	to.at = time.Duration(books.lastArrival.Load())
	m := Measure{Load: "drain", System: sluiceName, Round: round, PeakBytes: memory(t.server.pid()).peak}
	m.between(from, to)
	m.account(t.load)
	r.report.Measures = append(r.report.Measures, m)
	return nil
}

func (r *runner) restart(ctx context.Context, server *busProcess, round int) error {
	if err := r.next(ctx, "restart, round %d of %d", round, r.Rounds); err != nil {
		return err
	}
	server.kill()
	if err := server.start(ctx); err != nil {
		return err
	}
	r.report.Measures = append(r.report.Measures, Measure{
		Load: "restart", System: sluiceName, Round: round, ReadySeconds: server.ready.Seconds(), PeakBytes: memory(server.pid()).peak,
	})
	return nil
}

// untilSettled waits until no event is held by the log alone.
func (s *process) untilSettled(ctx context.Context) error {
	for {
		text, err := s.get(ctx, "/api/v1/status")
		if err != nil {
			return err
		}
		var status struct{ Unsettled int }
		if err := json.Unmarshal(text, &status); err != nil || status.Unsettled == 0 {
			return err
		}
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
