package dispatch

import (
	"fmt"
	"strconv"
	"time"
)

// Concurrency is how many attempts may run at the same time: a number, or Auto.
type Concurrency int

// Auto lets the bus find out how many attempts at a time a sink takes.
const Auto Concurrency = 0

// UnmarshalText reads a number, or auto.
func (c *Concurrency) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*c = Auto
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > maxConcurrency {
		return fmt.Errorf("must be auto or a number from 1 to %d, is %q", maxConcurrency, text)
	}
	*c = Concurrency(n)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (c Concurrency) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c Concurrency) String() string {
	if c == Auto {
		return "auto"
	}
	return strconv.Itoa(int(c))
}

const (
	maxConcurrency  = 10000
	autoConcurrency = 256 // the most that auto finds
	autoStart       = 8
)

// pace is the number of attempts that may run at the same time. It is cut in half
// when the sink asks for less or does not keep up, and grows back by one for each
// round of successes; after an outage it starts from one and doubles (the
// congestion control of TCP, RFC 5681, with attempts in place of segments).
// It is guarded by its lane's mutex.
type pace struct {
	auto      bool
	most      float64
	limit     float64
	threshold float64       // below it the limit doubles each round
	cut       time.Time     // when it was last cut
	fastest   time.Duration // auto: about the quickest answer of late
}

func newPace(c Concurrency) pace {
	if c == Auto {
		return pace{auto: true, most: autoConcurrency, limit: autoStart, threshold: autoConcurrency}
	}
	return pace{most: float64(c), limit: float64(c), threshold: float64(c)}
}

// reload is for a sink whose settings have changed: what was learned of it stays, unless
// it may have another number of attempts now.
func (p *pace) reload(c Concurrency) {
	if next := newPace(c); next.auto != p.auto || next.most != p.most {
		*p = next
	}
}

func (p *pace) allowed() int { return int(p.limit) }

// restart begins from one attempt at a time.
func (p *pace) restart() {
	p.threshold = max(1, p.most/2)
	p.limit = 1
}

// observe takes in one attempt that ended at now.
func (p *pace) observe(h health, took time.Duration, now time.Time) {
	switch {
	case h == busy, h == sick && p.auto:
		p.shrink(0.5, took, now)
	case h == sick:
	case p.auto && p.slow(took):
		p.shrink(0.8, took, now)
	case p.limit < p.threshold:
		p.limit = min(p.most, p.limit+1)
	default:
		p.limit = min(p.most, p.limit+1/p.limit)
	}
}

// shrink cuts the limit, once for all the attempts that ran at the same time.
func (p *pace) shrink(to float64, took time.Duration, now time.Time) {
	if now.Sub(p.cut) < max(took, 10*time.Millisecond) {
		return
	}
	p.cut = now
	p.limit = max(1, p.limit*to)
	p.threshold = p.limit
}

// slow tells whether an answer took so long that requests must be queueing on the
// far side.
func (p *pace) slow(took time.Duration) bool {
	if p.fastest == 0 || took < p.fastest {
		p.fastest = took
	} else {
		p.fastest += p.fastest / 1000 // forget: the function may have become slower for good
	}
	return took > 4*p.fastest && took > p.fastest+10*time.Millisecond
}

// budget keeps retries from becoming a storm: they may be a share of the fresh
// attempts, and always a few a second. It is guarded by its lane's mutex.
type budget struct {
	share  float64
	tokens float64
	filled time.Time
	owed   bool // a retry was refused since there was last a token for one
}

const (
	budgetFloor = 10.0 // retries a second that are always allowed
	budgetMost  = 10.0 // seconds of the floor, and as much of the share, that can be saved up
)

// fresh notes the first attempt at a delivery, by itself or in a batch. It tells
// whether there is a token now for a retry that was refused.
func (b *budget) fresh() bool {
	b.tokens = min(b.tokens+b.share, budgetFloor*budgetMost*2)
	if !b.owed || b.tokens < 1 {
		return false
	}
	b.owed = false
	return true
}

// take tells whether one retry may go now, or when the floor has a token for it.
func (b *budget) take(now time.Time) (ok bool, in time.Duration) {
	if b.filled.IsZero() {
		b.tokens = budgetFloor * budgetMost
	} else if b.tokens < budgetFloor*budgetMost {
		b.tokens = min(b.tokens+budgetFloor*now.Sub(b.filled).Seconds(), budgetFloor*budgetMost)
	}
	b.filled = now
	if b.tokens < 1 {
		b.owed = true
		return false, time.Duration((1-b.tokens)/budgetFloor*float64(time.Second)) + time.Microsecond
	}
	b.tokens--
	return true, 0
}
