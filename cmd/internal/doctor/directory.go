package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// Resting is the store of a bus that does not run.
type Resting struct {
	Store  bus.Log
	Config *config.Config // nil: it is not compared with one
	Repair string         // the command that repairs
	Now    time.Time
}

// Report looks at everything that can be seen without the bus. What is settled is
// known no more precisely than the bus saved it.
func (o Resting) Report(ctx context.Context) (*Report, error) {
	r := &Report{OK: true, Checked: o.Now}
	if err := r.checkStore(ctx, o.Store, o.Repair); err != nil {
		return nil, err
	}
	if err := o.checkWaiting(ctx, r); err != nil {
		return nil, err
	}
	if err := r.checkRoom(ctx, o.Store, o.Config, o.Now); err != nil {
		return nil, err
	}
	r.checkSettings(o.Config)
	return r, r.checkClock(ctx, o.Store, o.Now)
}

// checkWaiting compares what waits with the config, and with the sinks that are held.
func (o Resting) checkWaiting(ctx context.Context, r *Report) error {
	waiting := map[string]int{}
	for _, name := range []string{bus.Backlog, bus.Retries} {
		keys, err := o.Store.Stream(name).Keys(ctx)
		if err != nil {
			return err
		}
		for sink, packs := range keys {
			waiting[sink] += packs
		}
	}
	dead, err := o.Store.Stream(bus.DeadLetters).Keys(ctx)
	if err != nil {
		return err
	}
	held, err := o.holds(ctx)
	if err != nil {
		return err
	}
	for _, sink := range slices.Sorted(maps.Keys(waiting)) {
		what := fmt.Sprintf("%d packs of deliveries wait", waiting[sink])
		switch {
		case o.Config != nil && !o.has(sink) && o.Config.RemovedSinks[sink] == "":
			r.removed(sink, what)
		case held[sink] == dispatch.HoldPaused:
			r.warn("sinks", sink, "start the server, then `sluice sinks resume "+sink+"`", "it is paused, and %s for it", what)
		case held[sink] == dispatch.HoldGone:
			r.warn("sinks", sink, "mend the sink, start the server, then `sluice sinks resume "+sink+"`", "it answered 410 and is disabled, and %s for it", what)
		}
	}
	for _, sink := range slices.Sorted(maps.Keys(dead)) {
		if source, ok := dispatch.SourceOf(sink); ok {
			r.rejections(source, fmt.Sprintf("%d packs", dead[sink]))
			continue
		}
		r.deadLetters(sink, fmt.Sprintf("packs of dead letters that are kept: %d", dead[sink]))
	}
	r.fine("sinks", "nothing waits for a sink that takes nothing")
	r.fine("dead letters", "there are none")
	return nil
}

func (o Resting) has(sink string) bool {
	return subscribed(sink) || slices.ContainsFunc(o.Config.Sinks, func(s config.Sink) bool { return s.Name == sink })
}

// holds are the reasons by sink that is held.
func (o Resting) holds(ctx context.Context) (map[string]string, error) {
	keys, err := o.Store.StateKeys(ctx, dispatch.HoldPrefix)
	if err != nil {
		return nil, err
	}
	held := map[string]string{}
	for _, key := range keys {
		text, err := o.Store.State(ctx, key)
		if errors.Is(err, bus.ErrDamaged) {
			held[strings.TrimPrefix(key, dispatch.HoldPrefix)] = dispatch.HoldPaused
			continue
		}
		if err != nil {
			return nil, err
		}
		var h dispatch.Hold
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, fmt.Errorf("what is saved under %s: %w", key, err)
		}
		held[strings.TrimPrefix(key, dispatch.HoldPrefix)] = h.Reason
	}
	return held, nil
}
