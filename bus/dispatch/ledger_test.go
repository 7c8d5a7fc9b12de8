package dispatch

import (
	"strconv"
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
		all := map[bus.Position]map[branch]bool{} // the deliveries, and whether each is settled
		sizes := map[uint64]int{}
		next := uint64(1)
		left := func(pos bus.Position) (n int) {
			for _, settled := range all[pos] {
				if !settled {
					n++
				}
			}
			return n
		}
		floor := func() uint64 {
			for seq := uint64(1); seq < next; seq++ {
				for i := range sizes[seq] {
					if left(bus.Position{Seq: seq, Index: i}) > 0 {
						return seq
					}
				}
			}
			return next
		}
		open := func() (n int) {
			for pos := range all {
				if left(pos) > 0 {
					n++
				}
			}
			return n
		}
		route := func(l *ledger, seq uint64) {
			l.begin(seq, sizes[seq], 10)
			for i := range sizes[seq] {
				pos := bus.Position{Seq: seq, Index: i}
				if (left(pos) == 0) != l.settled(pos) && len(all[pos]) > 0 {
					t.Fatalf("record %v is settled: %v, and %d deliveries are left", pos, l.settled(pos), left(pos))
				}
				if l.settled(pos) {
					continue
				}
				l.start(pos, len(all[pos]))
				for b, settled := range all[pos] {
					if l.branchSettled(pos, b) != settled {
						t.Fatalf("delivery %v of %v is settled: %v, want %v", b, pos, !settled, settled)
					}
					if settled {
						l.settleBranch(pos, b)
					}
				}
			}
			l.read(seq)
		}
		t.Repeat(map[string]func(*rapid.T){
			"pack": func(t *rapid.T) {
				sizes[next] = rapid.IntRange(1, 20).Draw(t, "records")
				for i := range sizes[next] {
					to := map[branch]bool{}
					for n := range rapid.IntRange(0, 3).Draw(t, "deliveries") {
						to[branch{"r", strconv.Itoa(n)}] = false
					}
					all[bus.Position{Seq: next, Index: i}] = to
				}
				route(l, next)
				next++
			},
			"settle": func(t *rapid.T) {
				pos := bus.Position{Seq: rapid.Uint64Range(1, next).Draw(t, "seq"), Index: rapid.IntRange(0, 19).Draw(t, "index")}
				b := branch{"r", strconv.Itoa(rapid.IntRange(0, 2).Draw(t, "delivery"))}
				if settled, there := all[pos][b]; there && !settled {
					l.settleBranch(pos, b)
					all[pos][b] = true
				}
			},
			"restart": func(t *rapid.T) {
				l = restarted(t, l)
				from := l.floor()
				if rapid.Bool().Draw(t, "twice") { // before anything was read
					l = restarted(t, l)
				}
				for seq := from; seq < next; seq++ {
					route(l, seq)
				}
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

// restarted is a ledger that begins from what another saved.
func restarted(t interface{ Fatal(...any) }, l *ledger) *ledger {
	var saved savedLedger
	l.save(&saved)
	fresh := newLedger(l.stream, l.ordered)
	if err := fresh.restore(&saved); err != nil {
		t.Fatal(err)
	}
	return fresh
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
	for seq := range uint64(10) {
		l.markBranch(bus.Position{Seq: seq + 1, Index: 1}, branch{"r", "s"})
	}
	again := restarted(t, l)
	again.cut(6)
	if !again.marked(bus.Position{Seq: 6}) || again.marked(bus.Position{Seq: 7}) {
		t.Error("the marks behind the end are kept, or those before it are not")
	}
	if p := (bus.Position{Seq: 7, Index: 1}); again.branchSettled(p, branch{"r", "s"}) || !again.branchSettled(bus.Position{Seq: 6, Index: 1}, branch{"r", "s"}) {
		t.Error("the deliveries behind the end are kept, or those before it are not")
	}
	done := newLedger(bus.Events, true)
	if err := done.restore(&savedLedger{Snapshot: []byte{11, 0}}); err != nil {
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
	l.markBranch(bus.Position{Seq: 3, Index: 7}, branch{"r", "s"})
	var good savedLedger
	l.save(&good)
	for n := range good.Snapshot {
		if err := newLedger(bus.Events, true).restore(&savedLedger{Snapshot: good.Snapshot[:n]}); err == nil {
			t.Errorf("a snapshot cut to %d of %d bytes was taken", n, len(good.Snapshot))
		}
	}
	for n := range good.Partly[0].Marks {
		cut := savedLedger{Snapshot: good.Snapshot, Partly: []savedBranch{{Marks: good.Partly[0].Marks[:n]}}}
		if err := newLedger(bus.Events, true).restore(&cut); err == nil {
			t.Errorf("marks cut to %d of %d bytes were taken", n, len(good.Partly[0].Marks))
		}
	}
}

func FuzzRestore(f *testing.F) {
	l := newLedger(bus.Events, true)
	l.begin(3, 9, 0)
	l.settle(bus.Position{Seq: 3, Index: 8})
	var saved savedLedger
	l.save(&saved)
	f.Add(saved.Snapshot)
	f.Add([]byte{1, 255, 255, 255, 255, 15, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, src []byte) {
		_ = newLedger(bus.Events, true).restore(&savedLedger{Snapshot: src})
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
