package dispatch_test

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"sluice/bus"
	"sluice/bus/memlog"
)

// chance makes the decisions of a random history. Each follows from the seed, from what
// it is about and from how many there were about that: so it does not matter which of
// the goroutines comes first, and a seed that has failed is likely to fail again. It is
// not certain to: how many operations of a kind there are before another one depends on
// how the goroutines run, and their selects and maps have an order of their own.
//
// Whoever has a chance guards it.
type chance struct {
	seed  uint64
	drawn map[string]int // how many decisions were made, by what they are about

	life    int            // how often it was armed
	left    int            // operations until a crash comes anyhow; 0 for none at all
	mean    int            // of so many operations one crashes
	met     map[string]int // operations of this life, by kind
	target  string         // a kind of operation that this life crashes at
	targets int            // which of that kind
	trail   []string       // where it crashed
}

func newChance(seed uint64) chance { return chance{seed: seed, drawn: map[string]int{}} }

// draw is a number below n.
func (c *chance) draw(about string, n int) int {
	c.drawn[about]++
	return c.decide(about, c.drawn[about], n)
}

func (c *chance) decide(about string, count, n int) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(about))
	// The finalizer of splitmix64 makes neighbours differ.
	x := h.Sum64() ^ c.seed*0x9e3779b97f4a7c15 ^ uint64(count)*0xd1342543de82ef95
	for range 2 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return int(x % uint64(n))
}

// arm begins a life that crashes within that many operations of the log: at a random
// one, or in every fourth life, which has half as many again, at one of the kinds that come
// seldom. 0: nothing happens to it.
func (c *chance) arm(patience int) {
	c.life++
	c.left, c.mean, c.met, c.target = patience, max(patience/2, 1), map[string]int{}, ""
	if what := fmt.Sprint("life ", c.life); patience > 0 && c.draw(what, 4) == 0 {
		kinds := slices.DeleteFunc(crashKinds(), isCommon)
		c.target, c.targets = kinds[c.draw(what, len(kinds))], 1+c.draw(what, 2)
		c.left, c.mean = patience*3/2, patience*3/2
	}
}

// calm tells that nothing happens to the log any more.
func (c *chance) calm() bool { return c.left == 0 }

// crashes tells whether the log crashes here. After that it is calm.
func (c *chance) crashes(op memlog.Op) bool {
	kind := kindOf(op)
	c.met[kind]++
	c.left--
	if c.left > 0 && (kind != c.target || c.met[kind] != c.targets) && c.decide(fmt.Sprint(kind, " in life ", c.life), c.met[kind], c.mean) > 0 {
		return false
	}
	c.left = 0
	c.trail = append(c.trail, fmt.Sprintf("life %d %s %d", c.life, kind, c.met[kind]))
	return true
}

// kindOf names an operation of the log and a side of it.
func kindOf(op memlog.Op) string {
	return strings.TrimSpace(op.When.String() + " " + op.Name + " " + op.Stream)
}

// crashKinds are all the operations of the log that the histories make, before and after.
func crashKinds() (kinds []string) {
	all := bus.StreamNames()
	for _, when := range []memlog.When{memlog.Before, memlog.After} {
		for name, streams := range map[string][]string{
			memlog.OpAppend: all, memlog.OpNext: all, memlog.OpRead: all, memlog.OpInfo: all,
			memlog.OpRemove: all[1:], memlog.OpGone: {bus.Backlog, bus.Retries}, memlog.OpGet: {bus.Backlog}, memlog.OpKeys: {bus.Backlog},
			memlog.OpState: {""}, memlog.OpStateKeys: {""}, memlog.OpPutState: {""},
		} {
			for _, stream := range streams {
				kinds = append(kinds, kindOf(memlog.Op{When: when, Name: name, Stream: stream}))
			}
		}
	}
	slices.Sort(kinds)
	return kinds
}

// isCommon tells the kinds of operations that every life has many of.
func isCommon(kind string) bool {
	for _, common := range []string{" Info ", " State", " PutState", " EVENTS", " Keys "} {
		if strings.Contains(kind, common) {
			return true
		}
	}
	return false
}

// crashPoints counts the crashes of a test by the operation they came at.
type crashPoints struct {
	mu    sync.Mutex
	total int
	at    map[string]int
}

func newCrashPoints() *crashPoints { return &crashPoints{at: map[string]int{}} }

func (c *crashPoints) add(op memlog.Op, step string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	c.at[kindOf(op)+step]++
}

// histories runs n histories beside each other, and says where they crashed.
func histories(t *testing.T, n int, run func(t *testing.T, seed uint64, seen *crashPoints)) *crashPoints {
	seen := newCrashPoints()
	t.Cleanup(func() { t.Logf("%d histories, %d crashes at %d kinds of points", n, seen.total, len(seen.at)) })
	for seed := range n {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { run(t, uint64(seed), seen) })
		})
	}
	return seen
}

// covered is from how many histories on each kind of operation has to have crashed.
const covered = 5000

// coverage prints at what the histories crashed, once they are over, and fails when many
// of them spared a kind of operation on one of its sides.
func coverage(t *testing.T, seen *crashPoints, histories int) {
	t.Helper()
	t.Cleanup(func() {
		kinds := crashKinds()
		for _, kind := range slices.Sorted(maps.Keys(seen.at)) {
			t.Logf("%6d crashes %s", seen.at[kind], kind)
			if !slices.Contains(kinds, kind) {
				t.Errorf("crashKinds does not know %q", kind)
			}
		}
		for _, kind := range kinds {
			// Of a thousand histories one removes a dead letter: TestCrashAtEveryOperation
			// crashes there each time.
			if seen.at[kind] == 0 && histories >= covered && !strings.HasSuffix(kind, scarce) {
				t.Errorf("none of %d crashes came %s", seen.total, kind)
			}
		}
	})
}

const scarce = "Remove DEADLETTERS"

// TestSeedsReplay goes through histories twice: most crash at the very same points.
func TestSeedsReplay(t *testing.T) {
	t.Parallel()
	const seeds = 20
	same := 0
	for seed := range uint64(seeds) {
		var trails [2][]string
		for i := range trails {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(seed)
				w.seen = newCrashPoints()
				w.history(t, seed, func(*memlog.Log) {})
				trails[i] = w.trail
			})
		}
		if slices.Equal(trails[0], trails[1]) {
			same++
		}
	}
	t.Logf("%d of %d histories crash at the same points when they are repeated", same, seeds)
	if same < seeds/3 { // the race detector takes some of it
		t.Errorf("%d of %d histories crash at the same points when they are repeated: a seed that fails says little", same, seeds)
	}
}
