package dispatch

import (
	"testing"
	"time"
)

// paceStep is a number of attempts that end, one after the other, with the limit after them.
type paceStep struct {
	n     int
	h     health
	took  time.Duration
	apart time.Duration // from the end before
	want  int
}

func TestPace(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		of      Concurrency
		from    float64 // the limit to begin with, where that is not the one at the start
		outage  bool
		starts  int
		attempt []paceStep
	}{
		"auto doubles while it has met no limit": {of: Auto, starts: 8, attempt: []paceStep{
			{n: 8, took: 5 * ms, want: 16}, {n: 16, took: 5 * ms, want: 32}, {n: 1000, took: 5 * ms, want: autoConcurrency},
		}},
		"one more for each round of successes after a cut": {of: Auto, from: 40, starts: 40, attempt: []paceStep{
			{n: 1, h: sick, took: 30 * time.Second, apart: time.Minute, want: 20},
			{n: 19, took: 5 * ms, want: 20}, {n: 2, took: 5 * ms, want: 21}, {n: 44, took: 5 * ms, want: 23},
		}},
		"half for a 429": {of: Auto, from: 100, starts: 100, attempt: []paceStep{
			{n: 1, h: busy, took: 5 * ms, apart: time.Minute, want: 50}, {n: 1, h: busy, took: 5 * ms, apart: time.Second, want: 25},
		}},
		"half for a timeout": {of: Auto, from: 100, starts: 100, attempt: []paceStep{
			{n: 1, h: sick, took: 30 * time.Second, apart: time.Minute, want: 50},
		}},
		"once for all that ran at the same time": {of: Auto, from: 100, starts: 100, attempt: []paceStep{
			{n: 100, h: sick, took: 30 * time.Second, apart: ms, want: 50}, {n: 1, h: sick, took: 30 * time.Second, apart: 30 * time.Second, want: 25},
		}},
		"a fifth less when answers take longer": {of: Auto, from: 100, starts: 100, attempt: []paceStep{
			{n: 1, took: 10 * ms, apart: time.Minute, want: 101}, {n: 50, took: 100 * ms, want: 80},
			{n: 1, took: 100 * ms, apart: 100 * ms, want: 64},
		}},
		"a little longer is nothing": {of: Auto, from: 100, starts: 100, attempt: []paceStep{
			{n: 1, took: 20 * ms, want: 101}, {n: 10, took: 75 * ms, apart: time.Second, want: 111},
		}},
		"never less than one": {of: Auto, starts: 8, attempt: []paceStep{
			{n: 10, h: busy, took: 5 * ms, apart: time.Second, want: 1},
		}},
		"fixed starts with all of it":      {of: 32, starts: 32, attempt: []paceStep{{n: 100, took: 5 * ms, want: 32}}},
		"fixed: a timeout changes nothing": {of: 32, starts: 32, attempt: []paceStep{{n: 10, h: sick, took: time.Second, apart: time.Minute, want: 32}}},
		"fixed: nor do slow answers": {of: 32, starts: 32, attempt: []paceStep{
			{n: 1, took: ms, want: 32}, {n: 10, took: time.Second, apart: time.Minute, want: 32},
		}},
		"fixed: half for a 429, and back": {of: 32, starts: 32, attempt: []paceStep{
			{n: 1, h: busy, took: 5 * ms, apart: time.Minute, want: 16}, {n: 17, took: 5 * ms, want: 17}, {n: 1000, took: 5 * ms, want: 32},
		}},
		"after an outage one, two, four": {of: 32, outage: true, starts: 1, attempt: []paceStep{
			{n: 1, want: 2}, {n: 2, want: 4}, {n: 4, want: 8}, {n: 8, want: 16}, // and from half of it
			{n: 17, want: 17}, {n: 18, want: 18},
		}},
		"one at a time stays one": {of: 1, outage: true, starts: 1, attempt: []paceStep{{n: 10, want: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPace(c.of)
			if c.from > 0 {
				p.limit, p.threshold = c.from, autoConcurrency
			}
			if c.outage {
				p.restart()
			}
			if got := p.allowed(); got != c.starts {
				t.Errorf("it starts with %d at a time, want %d", got, c.starts)
			}
			now := time.Unix(1e9, 0)
			for i, s := range c.attempt {
				for range s.n {
					now = now.Add(s.apart)
					p.observe(s.h, s.took, now)
				}
				if got := p.allowed(); got != s.want {
					t.Errorf("step %d: %d at a time, want %d", i+1, got, s.want)
				}
			}
		})
	}
}

// A share of the first attempts, and ten a second in any case; of both, ten seconds' worth
// at most can be saved up.
func TestBudget(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		share   float64
		fresh   int // first attempts a second
		seconds int
		min     int
		max     int
	}{
		"the floor":                       {share: 0.2, fresh: 0, seconds: 60, min: 100 + 590, max: 100 + 601},
		"and the share":                   {share: 0.2, fresh: 500, seconds: 60, min: 6500, max: 100 + 6000 + 601},
		"of a tenth":                      {share: 0.1, fresh: 500, seconds: 60, min: 3500, max: 100 + 3000 + 601},
		"as many as there are first ones": {share: 1, fresh: 100, seconds: 60, min: 6500, max: 100 + 6000 + 601},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, now := budget{share: c.share}, time.Unix(1e9, 0)
			took := 0
			for range c.seconds * 100 {
				now = now.Add(10 * time.Millisecond)
				for range c.fresh / 100 {
					b.fresh()
				}
				for ok := true; ok; {
					if ok, _ = b.take(now); ok {
						took++
					}
				}
			}
			if took < c.min || took > c.max {
				t.Errorf("%d retries in %d s, want %d to %d", took, c.seconds, c.min, c.max)
			}
		})
	}
	t.Run("what is saved up", func(t *testing.T) {
		t.Parallel()
		b, now := budget{share: 1}, time.Unix(1e9, 0)
		_, _ = b.take(now)
		for range 100000 {
			b.fresh()
		}
		n := 0
		for ok := true; ok; n++ {
			ok, _ = b.take(now.Add(time.Hour))
		}
		if n != 2*budgetFloor*budgetMost+1 {
			t.Errorf("%d at once after an hour of nothing but first attempts", n-1)
		}
	})
	t.Run("when the next comes", func(t *testing.T) {
		t.Parallel()
		b, now := budget{}, time.Unix(1e9, 0)
		var in time.Duration
		for ok := true; ok; {
			ok, in = b.take(now)
		}
		if early, _ := b.take(now.Add(in - time.Millisecond)); early || in > 101*time.Millisecond {
			t.Fatalf("a token after less than the %v that it said", in)
		}
		if ok, _ := b.take(now.Add(in)); !ok {
			t.Errorf("no token after the %v that it said", in)
		}
	})
}
