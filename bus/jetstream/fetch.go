package jetstream

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"

	"sluice/bus"
)

// A fetch asks for this many packs and bytes at most; the last pack may exceed the
// bytes.
const (
	fetchPacks = 256
	fetchBytes = 1 << 20
)

// fetched is the answer to one batch request: up to fetchPacks packs, and how many
// more the server counts behind them.
type fetched struct {
	packs []bus.Pack
	more  uint64
	full  bool // it stopped at what was asked for, not at the end
	end   bool // there was nothing at all
}

// fetch asks for packs from a start on: "seq" or "start_time" with its value. A
// filter is a subject.
func (s *stream) fetch(ctx context.Context, e *engine, start, filter string) (fetched, error) {
	request := fmt.Sprintf(`{%s,"batch":%d,"max_bytes":%d`, start, fetchPacks, fetchBytes)
	if filter != "" {
		request += fmt.Sprintf(`,"next_by_subj":%q`, filter)
	}
	var messages []*nats.Msg
	err := e.api.requestMany(ctx, "$JS.API.DIRECT.GET."+s.name, []byte(request+"}"), func(m *nats.Msg) bool {
		messages = append(messages, m)
		return m.Header.Get("Status") != ""
	})
	if err != nil {
		return fetched{}, s.err(err)
	}
	var f fetched
	last := messages[len(messages)-1].Header
	switch status := last.Get("Status"); status {
	case "204":
		f.more, err = strconv.ParseUint(last.Get("Nats-Num-Pending"), 10, 64)
	case "404":
		f.end = true
	default:
		err = fmt.Errorf("status %s %s", status, last.Get("Description"))
	}
	size := 0
	for _, m := range messages[:len(messages)-1] {
		p, perr := s.pack(m)
		if perr != nil {
			return fetched{}, perr
		}
		f.packs = append(f.packs, p)
		size += len(m.Data) + len(m.Header.Get("Nats-Subject"))
	}
	if n := len(f.packs); n > 0 {
		s.tail.seen(f.packs[n-1].Seq)
	}
	f.full = len(f.packs) == fetchPacks || size >= fetchBytes
	if err != nil {
		return fetched{}, s.err(err)
	}
	return f, nil
}

// pack reads a message as a pack. What is damaged is logged here, once for each read.
func (s *stream) pack(m *nats.Msg) (bus.Pack, error) {
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return bus.Pack{}, s.err(fmt.Errorf("a message without a number: %w", err))
	}
	p := bus.Pack{Seq: seq, Key: s.key(m.Header.Get("Nats-Subject"))}
	p.Records, p.Time, err = decodePack(m.Data, true)
	if err != nil {
		p = damagedPack(seq, p.Key)
	}
	if slices.ContainsFunc(p.Records, func(r []byte) bool { return r == nil }) {
		s.log.opts.Log.Error("a pack is damaged", "stream", s.name, "seq", seq, "key", p.Key, "err", err)
	}
	return p, nil
}

// fetchFrom gives some packs of a key from a number on, and the number to go on
// from. A pack that is there but cannot be read is among them.
func (s *stream) fetchFrom(ctx context.Context, e *engine, key string, from uint64) ([]bus.Pack, uint64, error) {
	end := s.tail.end() // all of it was stored before the server answers
	var filter string
	if key != "" {
		filter, _ = s.subject(key) // Read has checked it
	}
	f, err := s.fetch(ctx, e, fmt.Sprintf(`"seq":%d`, from), filter)
	if err != nil {
		return nil, 0, err
	}
	next := end + 1
	if n := len(f.packs); n > 0 {
		last := f.packs[n-1].Seq
		if next = max(next, last+1); f.full && f.more > 0 {
			next = last + 1
		}
	}
	if key == "" {
		packs, err := s.withDamaged(ctx, e, f.packs, from, next)
		return packs, next, err
	}
	short, err := s.isShort(ctx, e, f, filter, from)
	if err != nil || !short {
		return f.packs, next, err
	}
	packs, err := s.withLost(ctx, e, f.packs, from, next)
	return packs, next, err
}
