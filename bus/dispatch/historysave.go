package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"sluice/bus"
)

// The history outlives a restart: the newest part of it is saved when the bus stops.
// A process that is killed saves nothing, and the next one says so.

const (
	historyState = "history"
	// historyChunk is about how large one value of the state is, and historyChunks how
	// many there are at most: first those of the troubled ring.
	historyChunk  = 512 << 10
	historyChunks = 6
	// historyPatience is how long the end of the bus waits for its history.
	historyPatience = 5 * time.Second
)

// Span is a time of which something is remembered.
type Span struct {
	From    time.Time `json:"from"`            // when the process began
	To      time.Time `json:"to,omitzero"`     // when it ended; zero for the one that runs
	Calm    time.Time `json:"calm"`            // everything since then is remembered
	Trouble time.Time `json:"trouble"`         // failures, and what came after them, are remembered since then
	Clean   bool      `json:"clean,omitempty"` // false: the process ended without saving what it remembered
}

// savedHistory says what the chunks hold.
type savedHistory struct {
	Save   string `json:"save"` // in each chunk too: a chunk of another save says nothing
	Chunks int    `json:"chunks"`
	Spans  []Span `json:"spans"`
	// Open is when the process began that has not saved its own history yet.
	Open time.Time `json:"open,omitzero"`
}

// savedChunk is a part of the entries, in no order.
type savedChunk struct {
	Save    string       `json:"save"`
	Entries []savedEntry `json:"entries"`
}

// savedEntry is an entry in JSON.
type savedEntry struct {
	Key    uint64        `json:"k"`
	At     int64         `json:"t"`
	Took   time.Duration `json:"d,omitempty"`
	Seq    uint64        `json:"p,omitempty"`
	Index  int           `json:"i,omitempty"`
	Ref    string        `json:"f,omitempty"`
	Rule   string        `json:"r,omitempty"`
	Sink   string        `json:"s,omitempty"`
	Status int32         `json:"c,omitempty"`
	Try    int32         `json:"n,omitempty"`
	Stage  stageCode     `json:"g"`
	More   *more         `json:"m,omitempty"`
}

func (e *entry) saved() savedEntry {
	return savedEntry{e.key, e.at, e.took, e.pos.Seq, e.pos.Index, e.ref, e.rule, e.sink, e.status, e.try, e.stage, e.more}
}

func (s *savedEntry) entry() entry {
	return entry{s.Key, s.At, s.Took, bus.Position{Seq: s.Seq, Index: s.Index}, s.Ref, s.Rule, s.Sink, s.Status, s.Try, s.Stage, s.More}
}

func chunkKey(i int) string { return historyState + "." + strconv.Itoa(i) }

// saveHistory keeps the newest of the history for the next start. The bus ends
// without it just as well.
func (d *Dispatcher) saveHistory(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	head, chunks := d.history.pack(newJobID())
	for i, chunk := range chunks {
		if err := d.putHistory(ctx, chunkKey(i), savedChunk{head.Save, chunk}); err != nil {
			d.log.Warn("cannot save the history of events: their stories have a gap", "err", err)
			return
		}
	}
	if err := d.putHistory(ctx, historyState, head); err != nil {
		d.log.Warn("cannot save the history of events: their stories have a gap", "err", err)
	}
}

func (d *Dispatcher) putHistory(ctx context.Context, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return d.store.PutState(ctx, key, text)
}

// pack chooses what is saved, newest first: trouble may take all the room, and the
// calm gets what that leaves, but at least one chunk.
func (h *history) pack(save string) (savedHistory, [][]savedEntry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var calm, troubled []entry
	for i := range h.earlier {
		if e := h.earlier[i]; isCalm(&e) {
			calm = append(calm, e)
		} else {
			troubled = append(troubled, e)
		}
	}
	h.calm.each(func(e *entry) { calm = append(calm, *e) })
	h.troubled.each(func(e *entry) { troubled = append(troubled, *e) })
	now := h.span()
	now.To = h.now()
	chunks, lostTrouble := fill(troubled, historyChunks-1)
	more, lostCalm := fill(calm, historyChunks-len(chunks))
	spans := append(slices.Clone(h.spans), now)
	for i := range spans { // what had to go may be of an earlier process
		spans[i].Calm, spans[i].Trouble = later(spans[i].Calm, lostCalm), later(spans[i].Trouble, lostTrouble)
	}
	return savedHistory{Save: save, Chunks: len(chunks) + len(more), Spans: spans[max(0, len(spans)-historySpans):]}, append(chunks, more...)
}

// historySpans is how many processes are told of.
const historySpans = 16

// isCalm tells which ring an entry of an earlier process is of, or about: some of
// the calm ones were kept because trouble came before them.
func isCalm(e *entry) bool {
	return e.stage == codeAccepted || e.stage == codeReplied || e.stage == codeDelivered && e.try == 1
}

// fill puts the newest entries into so many chunks at most; lost is when the newest
// of the others happened, 0 for none.
func fill(all []entry, most int) (chunks [][]savedEntry, lost int64) {
	size := historyChunk
	for i := len(all) - 1; i >= 0; i-- {
		w := all[i].weight() + all[i].weight()/2 // JSON is longer
		if size+w > historyChunk {
			if len(chunks) == most {
				return chunks, all[i].at
			}
			chunks, size = append(chunks, nil), 0
		}
		last := len(chunks) - 1
		chunks[last] = append(chunks[last], all[i].saved())
		size += w
	}
	return chunks, 0
}

// restoreHistory reads what an earlier process saved. What cannot be read is left
// out: the bus works without it.
func (d *Dispatcher) restoreHistory(ctx context.Context) {
	var head savedHistory
	if err := d.getHistory(ctx, historyState, &head); err != nil {
		if !errors.Is(err, bus.ErrNotFound) {
			d.log.Warn("cannot read the history of events from before the restart: their stories have a gap", "err", err)
		}
		head = savedHistory{}
	}
	if !head.Open.IsZero() {
		head.Spans = append(head.Spans, Span{From: head.Open, To: d.history.began, Calm: d.history.began, Trouble: d.history.began})
	}
	var earlier []entry
	for i := range head.Chunks {
		var chunk savedChunk
		if err := d.getHistory(ctx, chunkKey(i), &chunk); err != nil || chunk.Save != head.Save {
			d.log.Warn("a part of the history of events from before the restart is missing", "err", err)
			for i := range head.Spans {
				head.Spans[i].Clean = false
			}
			continue
		}
		for i := range chunk.Entries {
			earlier = append(earlier, chunk.Entries[i].entry())
		}
	}
	slices.SortStableFunc(earlier, func(a, b entry) int { return int(max(-1, min(1, a.at-b.at))) })
	d.history.mu.Lock()
	d.history.earlier, d.history.spans = earlier, head.Spans
	d.history.mu.Unlock()
	head.Open = d.history.began
	if err := d.putHistory(ctx, historyState, head); err != nil {
		d.log.Debug("cannot note that a new history begins", "err", err)
	}
}

func (d *Dispatcher) getHistory(ctx context.Context, key string, v any) error {
	text, err := d.store.State(ctx, key)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
