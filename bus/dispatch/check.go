package dispatch

import (
	"context"
	"slices"

	"sluice/bus"
)

// CheckStore looks over a store that belongs to a bus: what the log itself finds, and
// what only the bus can tell: streams that end before it knows they did, and records
// that are whole and make no sense. It changes nothing, and may run beside the bus.
func CheckStore(ctx context.Context, store bus.Log, visit func(bus.Fault) error) error {
	var seen []bus.Fault
	once := func(f bus.Fault) error {
		if f.Kind == bus.FaultCut {
			if slices.ContainsFunc(seen, func(g bus.Fault) bool { return g.Stream == f.Stream && g.Last >= f.Last }) {
				return nil
			}
			seen = append(seen, f)
		}
		return visit(f)
	}
	if checker, ok := store.(bus.Checker); ok {
		if err := checker.Check(ctx, once); err != nil {
			return err
		}
	}
	saved, err := savedLedgers(ctx, store)
	if err != nil {
		err = visit(bus.Fault{Index: -1, Kind: bus.FaultDamaged, Detail: "what is settled is not known, so everything would be delivered again: " + err.Error()})
	} else {
		err = checkHeads(ctx, store, saved, once)
		if err == nil {
			err = checkContents(ctx, store, saved, visit)
		}
	}
	if err != nil {
		return err
	}
	for _, stream := range bus.StreamNames() {
		if err := checkRecords(ctx, store.Stream(stream), stream, visit); err != nil {
			return err
		}
	}
	return nil
}

// checkRecords visits the records of a stream that are there and cannot be decoded.
func checkRecords(ctx context.Context, s bus.Stream, name string, visit func(bus.Fault) error) error {
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	var failed error
	err = eachPack(ctx, s, 1, func(pack bus.Pack) bool {
		for i, rec := range pack.Records {
			if rec == nil {
				continue // the log has named it
			}
			var err error
			if name == bus.Events {
				_, err = bus.DecodeRecord(rec)
			} else {
				_, _, err = decodeMeta(rec)
			}
			if err == nil {
				continue
			}
			failed = visit(bus.Fault{
				Stream: name, First: pack.Seq, Last: pack.Seq, Index: i, Kind: bus.FaultDamaged,
				Detail: "the record is not understood: " + err.Error(), Repairable: len(pack.Records) == 1,
			})
			if failed != nil {
				return false
			}
		}
		return pack.Seq < info.Last
	})
	if failed != nil {
		return failed
	}
	return err
}

// Faults are those of the store that were found when the bus started.
func (d *Dispatcher) Faults() []bus.Fault { return slices.Clone(d.faults) }

// Explain says what it means when a balance does not come out even.
func (b Balance) Explain() string {
	switch lost := b.Lost(); {
	case lost > 0:
		return "they came into being and are nowhere: neither ended nor waiting"
	case lost < 0:
		return "more have ended or wait than came into being: something was counted twice"
	}
	return "the counters add up"
}
