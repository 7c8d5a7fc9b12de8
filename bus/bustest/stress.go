package bustest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"sluice/bus"
)

// testEverything runs writers, readers that remove what they have read in different
// ways, and one that sees it all, on one stream.
func testEverything(t *testing.T, h Harness) {
	const each = 150
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	var wg sync.WaitGroup
	for _, key := range []string{"removes", "trims", "groups"} {
		wg.Go(func() { writeAscending(ctx, t, s, key, each) })
		wg.Go(func() {
			if err := consume(ctx, s, key, each); err != nil {
				t.Errorf("reader of %s: %v", key, err)
			}
		})
	}
	wg.Go(func() { writeAscending(ctx, t, s, "stays", each) })
	wg.Go(func() {
		if err := watch(ctx, s, "stays", each); err != nil {
			t.Errorf("reader of all: %v", err)
		}
	})
	wg.Wait()
	wantKeys(t, s, map[string]int{"stays": each})
	wantInfo(t, s, info(t, s).First, 4*each, each)
}

// consume reads the packs of a key, which are numbered, and removes them the way
// the key says.
func consume(ctx context.Context, s bus.Stream, key string, n int) error {
	r, err := s.Read(ctx, key, 0)
	if err != nil {
		return err
	}
	var group []uint64
	for i := range n {
		p, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if p.Key != key || text(p)[0] != fmt.Sprint(i) {
			return fmt.Errorf("pack %d of %q has %q, want %d", p.Seq, p.Key, text(p), i)
		}
		switch group = append(group, p.Seq); {
		case key == "removes":
			err = s.Remove(ctx, p.Seq)
		case key == "trims":
			err = s.Trim(ctx, key, p.Seq+1)
		case len(group) == 10:
			err = s.Remove(ctx, group...)
			group = nil
		}
		if err != nil {
			return err
		}
	}
	return r.Close()
}

// watch reads all packs, of which some are removed before it gets there, until it
// has seen n of one key.
func watch(ctx context.Context, s bus.Stream, key string, n int) error {
	r, err := s.Read(ctx, "", 0)
	if err != nil {
		return err
	}
	for last, seen := uint64(0), 0; seen < n; {
		p, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if p.Seq <= last || len(p.Records) != 1 || p.Records[0] == nil {
			return fmt.Errorf("after pack %d came %d of %q with %q", last, p.Seq, p.Key, text(p))
		}
		last = p.Seq
		if p.Key != key {
			continue
		}
		if text(p)[0] != fmt.Sprint(seen) {
			return fmt.Errorf("pack %d of %q has %q, want %d", p.Seq, p.Key, text(p), seen)
		}
		seen++
	}
	return r.Close()
}
