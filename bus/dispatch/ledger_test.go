package dispatch

import (
	"testing"

	"pgregory.net/rapid"

	"sluice/bus"
)

// TestLedger runs random histories of an ordered ledger beside a plain table of
// what is settled, with restarts from snapshots.
func TestLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(bus.Events, true)
		left := map[bus.Position]int{} // deliveries that are not settled
		sizes := map[uint64]int{}
		next := uint64(1)
		floor := func() uint64 {
			for seq := uint64(1); seq < next; seq++ {
				for i := range sizes[seq] {
					if left[bus.Position{Seq: seq, Index: i}] > 0 {
						return seq
					}
				}
			}
			return next
		}
		open := func() (n int) {
			for _, k := range left {
				if k > 0 {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"pack": func(t *rapid.T) {
				n := rapid.IntRange(1, 20).Draw(t, "records")
				l.begin(next, n, 10)
				sizes[next] = n
				for i := range n {
					pos := bus.Position{Seq: next, Index: i}
					left[pos] = rapid.IntRange(0, 3).Draw(t, "deliveries")
					l.start(pos, left[pos])
				}
				l.read(next)
				next++
			},
			"settle": func(t *rapid.T) {
				pos := bus.Position{Seq: rapid.Uint64Range(1, next).Draw(t, "seq"), Index: rapid.IntRange(0, 19).Draw(t, "index")}
				l.settle(pos)
				left[pos] = max(0, left[pos]-1)
			},
			"restart": func(t *rapid.T) {
				fresh := newLedger(bus.Events, true)
				if err := fresh.restore(l.snapshot(nil)); err != nil {
					t.Fatal(err)
				}
				// What was partly settled is begun anew, whole.
				for seq := fresh.floor(); seq < next; seq++ {
					fresh.begin(seq, sizes[seq], 10)
					for i := range sizes[seq] {
						pos := bus.Position{Seq: seq, Index: i}
						if (left[pos] == 0) != fresh.settled(pos) {
							t.Fatalf("after a restart record %v is settled: %v, want %v", pos, fresh.settled(pos), left[pos] == 0)
						}
						if left[pos] > 0 {
							fresh.start(pos, left[pos])
						}
					}
					fresh.read(seq)
				}
				l = fresh
			},
			"": func(t *rapid.T) {
				if got := l.floor(); got != floor() {
					t.Fatalf("the floor is %d, want %d", got, floor())
				}
				if got, _ := l.load(); got != open() {
					t.Fatalf("%d records are open, want %d", got, open())
				}
			},
		})
	})
}

func TestLedgerKeepsAPackUntilItIsReadAndRemoved(t *testing.T) {
	t.Parallel()
	l := newLedger(bus.Backlog, false)
	var whole []uint64
	l.whole = func(seq uint64) { whole = append(whole, seq) }
	l.begin(7, 2, 0)
	l.settle(bus.Position{Seq: 7})
	l.settle(bus.Position{Seq: 7, Index: 1})
	if len(whole) != 0 {
		t.Fatal("a pack that was not read counts as done")
	}
	l.read(7)
	if len(whole) != 1 || !l.marked(bus.Position{Seq: 7}) {
		t.Fatal("a pack that is read and settled does not count as done, or its marks are gone too early")
	}
	l.drop(7)
	if l.marked(bus.Position{Seq: 7}) {
		t.Fatal("a removed pack still has marks")
	}
}

// A stream whose end was lost gives out its numbers again: what was settled there
// says nothing of what comes.
func TestLedgerForgetsWhatIsCutOff(t *testing.T) {
	t.Parallel()
	l := newLedger(bus.Events, true)
	for seq := range uint64(10) {
		l.begin(seq+1, 2, 0)
		l.settle(bus.Position{Seq: seq + 1})
	}
	again := newLedger(bus.Events, true)
	if err := again.restore(l.snapshot(nil)); err != nil {
		t.Fatal(err)
	}
	again.cut(6)
	if !again.marked(bus.Position{Seq: 6}) || again.marked(bus.Position{Seq: 7}) {
		t.Error("the marks behind the end are kept, or those before it are not")
	}
	done := newLedger(bus.Events, true)
	if err := done.restore([]byte{11, 0}); err != nil {
		t.Fatal(err)
	}
	if done.cut(6); done.floor() != 7 {
		t.Errorf("the floor is %d behind a stream that ends at 6", done.floor())
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	t.Parallel()
	l := newLedger(bus.Events, true)
	l.begin(3, 9, 0)
	l.settle(bus.Position{Seq: 3, Index: 8})
	good := l.snapshot(nil)
	for n := range good {
		if err := newLedger(bus.Events, true).restore(good[:n]); err == nil {
			t.Errorf("a snapshot cut to %d of %d bytes was taken", n, len(good))
		}
	}
}

func FuzzRestore(f *testing.F) {
	l := newLedger(bus.Events, true)
	l.begin(3, 9, 0)
	l.settle(bus.Position{Seq: 3, Index: 8})
	f.Add(l.snapshot(nil))
	f.Add([]byte{1, 255, 255, 255, 255, 15, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, src []byte) {
		_ = newLedger(bus.Events, true).restore(src)
	})
}

func FuzzDecodeDelivery(f *testing.F) {
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "s"}, {Name: "type", Value: "t"}}, []byte("data"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add((&delivery{event: e, id: "d", rule: "r", attempts: []Attempt{{Class: "timeout"}}}).record())
	f.Add([]byte{200, 1, '{'})
	f.Fuzz(func(t *testing.T, rec []byte) {
		d, err := decodeDelivery(rec, "sink")
		if err != nil {
			return
		}
		again, err := decodeDelivery(d.record(), "sink")
		if err != nil || again.id != d.id || string(again.event.Data()) != string(d.event.Data()) {
			t.Fatalf("not the same after a second encoding: %v", err)
		}
	})
}
