package dispatch

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestContentsAreExact lists and drops packs at random, many more than there are
// spans, and saves and restores in between: the list has the packs that it should.
func TestContentsAreExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		c, want := &contents{}, []uint64{}
		for seq := uint64(1); seq < 3000; seq += 1 + uint64(random.IntN(2)) {
			c.add(seq, "s", []time.Time{time.Unix(int64(seq), 0)})
			want = append(want, seq)
			if random.IntN(3) == 0 {
				i := random.IntN(len(want))
				c.drop(want[i], want[i]) // the second time it is not there
				want = slices.Delete(want, i, i+1)
			}
			if random.IntN(500) == 0 {
				c = savedAndRestored(t, c)
			}
		}
		var got []uint64
		if err := c.numbers(func(seqs []uint64) error { got = append(got, seqs...); return nil }); err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d packs are listed, want %d; %v", seed, len(got), len(want), err)
		}
		if len(c.spans) > maxSpans {
			t.Errorf("seed %d: %d spans", seed, len(c.spans))
		}
		gone := want[len(want)/3 : len(want)/2]
		deliveries := 0
		for _, l := range c.lose("x", gone) {
			deliveries += l.Packs
			if l.Since.After(time.Unix(int64(l.First), 0)) || l.Until.Before(time.Unix(int64(l.Last), 0)) {
				t.Errorf("seed %d: events of %d-%d are said to be from %v to %v", seed, l.First, l.Last, l.Since, l.Until)
			}
		}
		if deliveries != len(gone) {
			t.Errorf("seed %d: %d packs are lost, want %d", seed, deliveries, len(gone))
		}
	}
}

// TestContentsStaySmall lists a million packs of one sink, and a million of which
// every second one is dropped.
func TestContentsStaySmall(t *testing.T) {
	t.Parallel()
	for every, limit := range map[uint64]int{0: 64 << 10, 2: 2 << 20} {
		c := &contents{}
		for seq := uint64(1); seq <= 1_000_000; seq++ {
			c.add(seq, "s", []time.Time{time.Unix(int64(seq), 0)})
			if every > 0 && seq%every == 0 {
				c.drop(seq)
			}
		}
		text, err := json.Marshal(c.save())
		if err != nil || len(text) > limit {
			t.Errorf("a million packs take %d bytes, more than %d: %v", len(text), limit, err)
		}
	}
}

func savedAndRestored(t *testing.T, c *contents) *contents {
	t.Helper()
	text, err := json.Marshal(c.save())
	if err != nil {
		t.Fatal(err)
	}
	var saved savedContents
	if err := json.Unmarshal(text, &saved); err != nil {
		t.Fatal(err)
	}
	if c, err = restoreContents(&saved); err != nil {
		t.Fatal(err)
	}
	return c
}
