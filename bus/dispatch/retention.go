package dispatch

import (
	"context"
	"errors"
	"time"

	"sluice/bus"
)

// Retention is how long events stay in the log after they are settled: for replay
// and to look them up. What is not settled stays whatever it says.
type Retention struct {
	Age         time.Duration // 0: no limit
	Size        int64         // bytes; 0: no limit
	DeadLetters time.Duration // how long dead letters stay; 0: until they are purged
}

const (
	retentionEvery = time.Second
	// When the store is fuller than this, settled events go before their time:
	// room for new ones is worth more than history. It has to lie below the share
	// of the store at which a Log takes no more events (0.8), or history would
	// keep new events out.
	pressure = 0.7
)

// keepRetention trims the log until ctx ends.
func (d *Dispatcher) keepRetention(ctx context.Context) {
	for {
		pause(ctx, retentionEvery)
		if ctx.Err() != nil {
			return
		}
		if err := d.trim(ctx, d.now()); err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrClosed) {
			d.log.Warn("cannot trim the log", "err", err)
		}
		if err := d.expireDeadLetters(ctx, d.now()); err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrClosed) {
			d.log.Warn("cannot remove old dead letters", "err", err)
		}
	}
}

// expireDeadLetters removes the dead letters that are past their time.
func (d *Dispatcher) expireDeadLetters(ctx context.Context, now time.Time) error {
	age := d.routing.Load().retain.DeadLetters
	if age == 0 {
		return nil
	}
	info, err := d.dead.stream.Info(ctx)
	if err != nil || info.Packs == 0 || info.FirstTime.After(now.Add(-age)) {
		return err
	}
	return d.dead.walk(ctx, bus.Position{}, func(letter *DeadLetter, n int) bool {
		if letter.Died.After(now.Add(-age)) {
			return false
		}
		d.dead.remove(letter, n)
		d.countPurged(letter, "expired")
		return true
	})
}

// trim removes the events that are settled and past their time, or in the way.
func (d *Dispatcher) trim(ctx context.Context, now time.Time) error {
	stream := d.router.stream
	info, err := stream.Info(ctx)
	if err != nil || info.Packs == 0 {
		return err
	}
	below, age := info.First, d.routing.Load().retain.Age
	if age > 0 && info.FirstTime.Before(now.Add(-age)) {
		if below, err = stream.Since(ctx, now.Add(-age)); err != nil {
			return err
		}
	}
	below = max(below, bySize(info, d.excess(info)))
	if below = min(below, d.events.floor(), d.jobs.needed()); below <= info.First {
		return nil
	}
	return stream.Trim(ctx, "", below)
}

// excess is how many bytes of events have to go.
func (d *Dispatcher) excess(info bus.StreamInfo) int64 {
	excess := int64(0)
	if size := d.routing.Load().retain.Size; size > 0 {
		excess = int64(info.Bytes) - size
	}
	u := d.store.Usage()
	if u.Limit > 0 {
		excess = max(excess, u.Stored-int64(pressure*float64(u.Limit)))
	}
	if u.Free >= 0 && u.Limit > 0 && u.Free < u.Limit-u.Stored {
		// The volume is smaller than the limit: it is what fills up.
		room := u.Stored + u.Free
		excess = max(excess, u.Stored-int64(pressure*float64(room)))
	}
	return excess
}

// bySize is the number below which about so many bytes of a stream lie. It takes
// the packs as equally large, and is called again soon.
func bySize(info bus.StreamInfo, bytes int64) uint64 {
	if bytes <= 0 || info.Bytes == 0 {
		return info.First
	}
	span := info.Last - info.First + 1
	share := min(1, float64(bytes)/float64(info.Bytes))
	return info.First + uint64(share*float64(span)+1)
}
