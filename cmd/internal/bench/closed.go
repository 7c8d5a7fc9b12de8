package bench

import (
	"context"
	"fmt"
)

// bout is one fresh server under one load, the unit of a round.
type bout struct {
	load, system string
	round        int
	sinks        int // that each event goes to; 0 for ingest alone
	configured   int // sinks, when there are more
	connections  int
	outstanding  int
	batch        int
	rate         float64
}

// measure runs a bout and keeps what came of it.
func (r *runner) measure(ctx context.Context, b bout) error {
	if err := r.next(ctx, "%s %s, round %d of %d", b.load, b.system, b.round, r.Rounds); err != nil {
		return err
	}
	books := newTally(b.sinks, b.outstanding)
	f, err := newFarm(books, max(1, b.sinks))
	if err != nil {
		return err
	}
	defer f.close()
	server, stop, err := r.server(ctx, b, f)
	if err != nil {
		return err
	}
	defer stop()
	t := trial{
		server: server, bus: b.system == sluiceName, farm: f, warmup: r.Warmup, during: r.Duration,
		load: &load{connections: b.connections, size: r.Size, batch: b.batch, rate: b.rate, tally: books},
	}
	m, err := t.run(ctx, Measure{Load: b.load, System: b.system, Round: b.round})
	if err != nil {
		return err
	}
	r.report.Measures = append(r.report.Measures, m)
	return nil
}

// server starts what a bout is about.
func (r *runner) server(ctx context.Context, b bout, f *farm) (*process, func(), error) {
	if b.system == sluiceName {
		server, err := r.startBus(ctx, busOf{load: b.load, farm: f, sinks: b.configured, nowhere: b.sinks == 0})
		if err != nil {
			return nil, nil, err
		}
		return server.process, server.stop, nil
	}
	start := func() (*process, error) { return r.startProxy(ctx, b.load, f) }
	if b.system == doorName {
		start = func() (*process, error) { return r.startDoor(ctx, b.load) }
	}
	server, err := start()
	if err != nil {
		return nil, nil, err
	}
	return server, server.stop, nil
}

// all measures each bout in each round.
func (r *runner) all(ctx context.Context, bouts ...bout) error {
	for round := range r.Rounds {
		for _, b := range bouts {
			b.round = round + 1
			if err := r.measure(ctx, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// fanout drives the bus as fast as it delivers. The number of events on their way
// is bounded: without that the fast ingest would pile up a backlog, which is what
// another scenario measures. The proxy has one for each connection.
func (r *runner) fanout(ctx context.Context) error {
	one := bout{load: "1→1", system: sluiceName, sinks: 1, connections: r.Connections, outstanding: r.Outstanding}
	ten := one
	ten.load, ten.sinks = "1→10", 10
	many := ten
	many.load, many.configured = fmt.Sprintf("1→10 of %d", r.Sinks), r.Sinks
	bouts := []bout{one, ten, many}
	if r.Baseline {
		bouts = []bout{one, asProxy(one), ten, asProxy(ten), many}
	}
	err := r.all(ctx, bouts...)
	for _, b := range []bout{one, ten} {
		r.report.compare(side{b.load, sluiceName}, side{b.load, proxyName}, deliveryRate(), cpuBound(), cpuCost())
	}
	r.report.compare(side{many.load, sluiceName}, side{ten.load, sluiceName}, deliveryRate(), cpuBound(), cpuCost())
	return err
}

func asProxy(b bout) bout {
	b.system, b.outstanding = proxyName, 0
	return b
}

func fanoutSteps(s *Settings) int {
	if s.Baseline {
		return 5 * s.Rounds
	}
	return 3 * s.Rounds
}

// The connections of ingest beside --connections.
const (
	manyConnections = 512
	batchEvents     = 100
)

// ingest measures the door and the store alone: no rule matches.
func (r *runner) ingest(ctx context.Context) error {
	few := bout{load: fmt.Sprintf("%d connections", r.Connections), system: sluiceName, connections: r.Connections}
	many := bout{load: fmt.Sprintf("%d connections", manyConnections), system: sluiceName, connections: manyConnections}
	batches := bout{load: fmt.Sprintf("batches of %d", batchEvents), system: sluiceName, connections: max(1, r.Connections/4), batch: batchEvents}
	asDoor := func(b bout) bout { b.system = doorName; return b }
	err := r.all(ctx, few, asDoor(few), many, asDoor(many), batches)
	for _, b := range []bout{few, many} {
		r.report.compare(side{b.load, sluiceName}, side{b.load, doorName}, eventRate(), cpuBound())
	}
	r.report.compare(side{batches.load, sluiceName}, side{few.load, sluiceName}, eventRate(), cpuBound())
	return err
}

func ingestSteps(s *Settings) int { return 5 * s.Rounds }

// latency sends at a steady rate that the machine has no trouble with.
func (r *runner) latency(ctx context.Context) error {
	b := bout{load: fmt.Sprintf("%v events/s", r.Rate), system: sluiceName, sinks: 1, connections: r.Connections, rate: r.Rate}
	bouts := []bout{b}
	if r.Baseline {
		bouts = append(bouts, asProxy(b))
	}
	err := r.all(ctx, bouts...)
	r.report.compare(side{b.load, sluiceName}, side{b.load, proxyName}, deliveryP50(), deliveryP99())
	return err
}

func latencySteps(s *Settings) int {
	if s.Baseline {
		return 2 * s.Rounds
	}
	return s.Rounds
}
