package dispatch

import "time"

// Leak makes deliveries vanish, or come from nowhere, as far as the counters tell.
func (d *Dispatcher) Leak(sink string, deliveries int64) {
	d.lane(sink).metrics.live.entered.Add(deliveries)
}

// Balances are those of each sink at this moment.
func (d *Dispatcher) Balances() map[string]Balance {
	all := map[string]Balance{}
	for _, l := range d.allLanes() {
		all[l.name] = l.balance()
	}
	return all
}

// The bound within which a difference shows.
const ConserveBound = conserveEvery * conserveTimes

// Compare compares once, out of turn.
func (d *Dispatcher) Compare() { d.compare(map[string]streak{}, time.Time{}) }

// Leases is how many leases are held or being ended.
func (d *Dispatcher) Leases() int {
	d.retries.mu.Lock()
	defer d.retries.mu.Unlock()
	return len(d.retries.leases.waiting) + len(d.retries.leases.away)
}
