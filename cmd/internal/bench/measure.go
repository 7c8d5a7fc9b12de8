package bench

import (
	"context"
	"os"
	"time"
)

// trial is one measurement: a server, its load and its sinks.
type trial struct {
	server *process
	bus    bool // it has metrics
	farm   *farm
	load   *load
	warmup time.Duration
	during time.Duration
	after  func() // the load, before the rest is waited for; may be nil
}

// snapshot is what has happened up to a moment.
type snapshot struct {
	at                time.Duration
	accepted, arrived int64
	cpu, own          time.Duration // of the server, and of this process
	counters          counters
}

func (t *trial) snapshot(ctx context.Context) (s snapshot, err error) {
	if t.bus {
		if s.counters, err = t.server.counters(ctx); err != nil {
			return s, err
		}
	}
	books := t.load.tally
	s.at, s.accepted, s.arrived = books.now(), books.accepted.Load(), books.arrived.Load()
	s.cpu, s.own = cpuTime(t.server.pid()), cpuTime(os.Getpid())
	return s, t.server.alive()
}

// run puts the load on the server, measures after the warm-up, and waits until
// every event has arrived, or none does any more.
func (t *trial) run(ctx context.Context, m Measure) (Measure, error) {
	books := t.load.tally
	t.load.address = t.server.address
	t.load.begin(ctx)
	pause(ctx, t.warmup)
	from, err := t.snapshot(ctx)
	if err == nil {
		books.recording.Store(true)
		pause(ctx, t.during)
		books.recording.Store(false)
	}
	to := from
	if err == nil {
		to, err = t.snapshot(ctx)
	}
	t.load.end()
	if err != nil {
		return m, err
	}
	if t.after != nil {
		t.after()
	}
	t.settle(ctx)
	m.between(from, to)
	m.Ack, m.Delivery = books.acks.latency(), t.farm.latency()
	m.account(t.load)
	m.PeakBytes, m.IdleBytes, m.IdleOwnBytes = memory(t.server.pid()).peak, t.server.idle.resident, t.server.idle.own
	return m, ctx.Err()
}

// stillness is how long nothing may arrive before the rest is given up: longer
// than a delivery takes that failed once.
const stillness = 15 * time.Second

// settle waits until every accepted event is at every sink.
func (t *trial) settle(ctx context.Context) {
	books := t.load.tally
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	seen, since := int64(-1), time.Now()
	for ctx.Err() == nil && t.server.alive() == nil {
		arrived := books.arrived.Load()
		if arrived >= books.accepted.Load()*int64(books.sinks) && books.missing() == 0 {
			return
		}
		if arrived != seen {
			seen, since = arrived, time.Now()
		} else if time.Since(since) > stillness {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// between fills in what follows from two snapshots.
func (m *Measure) between(from, to snapshot) {
	m.Seconds = (to.at - from.at).Seconds()
	m.Events, m.Deliveries = to.accepted-from.accepted, to.arrived-from.arrived
	m.EventsPerSecond = float64(m.Events) / m.Seconds
	m.DeliveriesPerSecond = float64(m.Deliveries) / m.Seconds
	n := float64(m.Deliveries)
	if m.Deliveries == 0 {
		n = float64(m.Events) // of ingest alone, what counts is the event
	}
	if n > 0 {
		m.CPUPerThousand = (to.cpu - from.cpu).Seconds() / n * 1000
		m.BenchPerThousand = (to.own - from.own).Seconds() / n * 1000
		m.SpilledPerThousand = (to.counters.spilled - from.counters.spilled) / n * 1000
	}
	if n := to.counters.accepted - from.counters.accepted; n > 0 {
		m.WritesPerEvent = (to.counters.writes - from.counters.writes) / n
		m.AllWritesPerEvent = (to.counters.allWrites - from.counters.allWrites) / n
		m.SavesPerEvent = (to.counters.saves - from.counters.saves) / n
	}
	if n := to.counters.writes - from.counters.writes; n > 0 {
		m.RecordsPerPack = (to.counters.records - from.counters.records) / n
	}
}

// account fills in what became of all events.
func (m *Measure) account(l *load) {
	books := l.tally
	m.Accepted, m.Refused = books.accepted.Load(), books.refused.Load()
	m.Lost, m.Duplicates, m.Late = books.missing(), books.duplicates.Load(), l.late.Load()
	if fault := l.fault.Load(); fault != nil {
		m.Fault = *fault
	}
	if books.strangers.Load() > 0 {
		m.Fault = "deliveries of events that were never sent"
	}
}
