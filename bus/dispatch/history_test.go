package dispatch

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/bus"
)

// TestRing runs random entries through a ring beside a plain list.
func TestRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most, room := rapid.IntRange(1, 200).Draw(t, "entries"), rapid.IntRange(200, 40_000).Draw(t, "bytes")
		var r ring
		r.limit(most, room)
		var gone []int64
		r.forgot = func(e *entry) { gone = append(gone, e.at) }
		var want []entry
		size := 0
		for at := range rapid.IntRange(0, 500).Draw(t, "n") {
			e := entry{at: int64(at + 1), ref: "delivery"}
			if rapid.Bool().Draw(t, "failed") {
				e.more = &more{Error: strings.Repeat("x", rapid.IntRange(0, 2000).Draw(t, "error"))}
			}
			r.add(e)
			want, size = append(want, e), size+e.weight()
			for len(want) > 1 && (len(want) > most || size > room) {
				size -= want[0].weight()
				want = want[1:]
			}
			got := []int64{}
			r.each(func(e *entry) { got = append(got, e.at) })
			lost := int64(at+1) - int64(len(want)) // every one before the first that is left
			if first := want[0].at; len(got) != len(want) || got[0] != first || got[len(got)-1] != int64(at+1) || r.lost != lost || len(gone) != int(lost) || r.size != size {
				t.Fatalf("after %d: %v, lost %d of which %d were told, %d bytes; want %d entries from %d on, %d bytes", at+1, got, r.lost, len(gone), r.size, len(want), first, size)
			}
			if !slices.IsSorted(got) || len(r.all) > most {
				t.Fatalf("%v in %d places", got, len(r.all))
			}
		}
	})
}

// calm and trouble note what became of deliveries of an event.
func calm(h *history, id string) {
	e := identity{"s", id}
	h.note(entry{key: historyKey(id), at: h.now().UnixNano(), ref: e.delivery("r", "ok", ""), rule: "r", sink: "ok", try: 1, stage: codeDelivered}, false)
}

func trouble(h *history, id string) {
	e := identity{"s", id}
	h.note(entry{
		key: historyKey(id), at: h.now().UnixNano(), ref: e.delivery("r", "bad", ""), rule: "r", sink: "bad", try: 1, status: 500,
		stage: codeRetry, more: &more{Class: "status_5xx", Error: "answered 500"},
	}, true)
}

func stages(h *history, id string) (all []string) {
	for _, e := range h.find(map[uint64]bool{historyKey(id): true}) {
		if !e.isOf(identity{"s", id}) {
			continue
		}
		all = append(all, stageOf(e.stage)+" "+e.sink)
	}
	return all
}

// ticking is a clock that goes on by a millisecond each time that it is read.
func ticking() func() time.Time {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	return func() time.Time {
		at = at.Add(time.Millisecond)
		return at
	}
}

// A flood of deliveries that are made at once does not wash away a failure, nor how it
// ended.
func TestHistoryKeepsTrouble(t *testing.T) {
	t.Parallel()
	h := newHistory(ticking())
	calm(h, "early")
	trouble(h, "e")
	calm(h, "e")
	for i := range historyEntries + 10 {
		calm(h, fmt.Sprint("flood", i))
	}
	if got := stages(h, "e"); !slices.Equal(got, []string{"retry bad", "delivered ok"}) {
		t.Errorf("the event with trouble: %v", got)
	}
	if got := stages(h, "early"); got != nil {
		t.Errorf("the one before the flood: %v", got)
	}
	if got := stages(h, fmt.Sprint("flood", historyEntries)); !slices.Equal(got, []string{"delivered ok"}) {
		t.Errorf("the last but some: %v", got)
	}
	span := h.covers()[0]
	if !span.Calm.After(span.From) || !span.Trouble.Equal(span.From) {
		t.Errorf("it says that it remembers %+v", span)
	}
	for i := range historyBytes/400 + 10 {
		trouble(h, fmt.Sprint("bad", i))
	}
	if got := stages(h, "e"); got != nil || len(h.names) != h.troubled.n {
		t.Errorf("the event with trouble, after as much trouble as there is room for: %v; %d names for %d entries", got, len(h.names), h.troubled.n)
	}
}

// Two events may have the same id, and the ids of two the same hash: what is found is
// verified.
func TestHistoryIsVerified(t *testing.T) {
	t.Parallel()
	h := newHistory(ticking())
	trouble(h, "e")
	for _, e := range h.find(map[uint64]bool{historyKey("e"): true}) {
		if !e.isOf(identity{"s", "e"}) || e.isOf(identity{"other", "e"}) || e.isOf(identity{"s", "f"}) {
			t.Errorf("%+v is not told apart", e)
		}
	}
}

// What is saved is the newest, within the limit, and reads back as it was.
func TestHistoryIsSaved(t *testing.T) {
	t.Parallel()
	h := newHistory(ticking())
	h.spans = []Span{{From: h.began.Add(-time.Hour), To: h.began, Calm: h.began.Add(-time.Hour), Trouble: h.began.Add(-time.Hour), Clean: true}}
	h.earlier = []entry{{key: 7, at: h.began.Add(-time.Minute).UnixNano(), stage: codeRetry, more: &more{Class: "timeout"}}}
	trouble(h, "first")
	for i := range 30_000 {
		calm(h, fmt.Sprint("e", i))
	}
	trouble(h, "last")
	head, chunks := h.pack("save")
	if len(chunks) != head.Chunks || head.Chunks > historyChunks {
		t.Fatalf("%d chunks of %d", len(chunks), head.Chunks)
	}
	var back []entry
	for _, c := range chunks {
		text, err := json.Marshal(savedChunk{"save", c})
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 2*historyChunk {
			t.Errorf("a chunk has %d bytes", len(text))
		}
		var read savedChunk
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		for i := range read.Entries {
			back = append(back, read.Entries[i].entry())
		}
	}
	count := map[uint64]int{}
	for _, e := range back {
		count[e.key]++
	}
	newest, oldest := historyKey(fmt.Sprint("e", 29_999)), historyKey("e0")
	if count[7] != 1 || count[historyKey("first")] != 1 || count[historyKey("last")] != 1 || count[newest] != 1 || count[oldest] != 0 {
		t.Errorf("saved: %d entries; earlier %d, first %d, last %d, newest %d, oldest %d", len(back), count[7],
			count[historyKey("first")], count[historyKey("last")], count[newest], count[oldest])
	}
	now := head.Spans[len(head.Spans)-1]
	if len(head.Spans) != 2 || !now.Calm.After(now.From) || !now.Trouble.Equal(now.From) || now.To.IsZero() || !head.Spans[0].Calm.After(head.Spans[0].To) {
		t.Errorf("it says that it remembers %+v", head.Spans)
	}
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC) }
	span := func(from, to, calm int, clean bool) Span {
		s := Span{From: at(from), Calm: at(calm), Trouble: at(from), Clean: clean}
		if to > 0 {
			s.To = at(to)
		}
		return s
	}
	for name, c := range map[string]struct {
		spans []Span
		since int
		want  bool
	}{
		"in this process":             {[]Span{span(10, 0, 10, true)}, 11, true},
		"before it":                   {[]Span{span(10, 0, 10, true)}, 9, false},
		"what had to go":              {[]Span{span(10, 0, 20, true)}, 15, false},
		"in the last process":         {[]Span{span(0, 8, 0, true), span(10, 0, 10, true)}, 5, true},
		"while it was down":           {[]Span{span(0, 8, 0, true), span(10, 0, 10, true)}, 9, true},
		"in one that was killed":      {[]Span{span(0, 8, 8, false), span(10, 0, 10, true)}, 5, false},
		"after one that was killed":   {[]Span{span(0, 8, 8, false), span(10, 0, 10, true)}, 9, true},
		"before one that was killed":  {[]Span{span(0, 2, 0, true), span(3, 8, 8, false), span(10, 0, 10, true)}, 1, false},
		"this one had to let some go": {[]Span{span(0, 8, 0, true), span(10, 0, 12, true)}, 5, false},
	} {
		if got := remembered(c.spans, at(c.since)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The healthy path pays for the history what BenchmarkHistory says.
func BenchmarkHistory(b *testing.B) {
	h := newHistory(time.Now)
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "3f2a9c1e-7b7b-4c56-9f0e-0a1b2c3d4e5f"}, {Name: "source", Value: "/bench"}, {Name: "type", Value: "bench.made"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	d := &delivery{event: e, id: deliveryID(e, "rule", "sink", ""), rule: "rule", sink: "sink"}
	a := Attempt{At: time.Now(), Duration: time.Millisecond, Class: "ok"}
	b.ReportAllocs()
	for b.Loop() {
		h.outcome(d, a, Delivered, 0, 1)
	}
}
