package jetstream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

// A pack that nats-server cannot read it cannot remove either, but by a trim. So what
// is in quarantine is a list in the state table: readers do not see those packs, and
// counts leave them out.

const quarantineKey = "quarantine"

// quarantined is one pack in quarantine.
type quarantined struct {
	Stream string `json:"stream"` // the id
	Seq    uint64 `json:"seq"`
	Key    string `json:"key"` // that the server counts it under
	Gap    bool   `json:"gap"` // the server does not count it
}

// loadQuarantine hides what is in quarantine.
func (l *Log) loadQuarantine(ctx context.Context, e *engine) error {
	value, err := l.state.get(ctx, e, quarantineKey)
	if errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrDamaged) {
		return nil // Check tells of the packs again
	}
	if err != nil {
		return err
	}
	var list []quarantined
	if err := json.Unmarshal(value, &list); err != nil {
		return fmt.Errorf("jetstream: the list of what is in quarantine: %w", err)
	}
	for _, s := range l.streams {
		s.hide(list)
	}
	return nil
}

// hide takes the packs of a list out of the sight of readers.
func (s *stream) hide(list []quarantined) {
	s.quarantine.Lock()
	defer s.quarantine.Unlock()
	s.hidden = map[uint64]quarantined{}
	var seqs []uint64
	for _, q := range list {
		if q.Stream == s.id {
			s.hidden[q.Seq] = q
			seqs = append(seqs, q.Seq)
		}
	}
	s.tail.removed(seqs)
}

func (s *stream) isQuarantined(seq uint64) bool {
	s.quarantine.Lock()
	defer s.quarantine.Unlock()
	_, ok := s.hidden[seq]
	return ok
}

// uncount takes the packs in quarantine out of counts by key.
func (s *stream) uncount(keys map[string]int, first uint64) {
	s.quarantine.Lock()
	defer s.quarantine.Unlock()
	for seq, q := range s.hidden {
		if q.Gap || seq < first {
			continue
		}
		if keys[q.Key]--; keys[q.Key] <= 0 {
			delete(keys, q.Key)
		}
	}
}

// Quarantine implements bus.Checker. What is left of a pack is in the block file that
// it was in, so that is what is copied. Call it while nobody else uses the log: the
// key of a pack that cannot be read is the one of which the server counts too many.
func (l *Log) Quarantine(ctx context.Context, f bus.Fault, dir string) ([]string, error) {
	s, ok := l.streams[f.Stream]
	if !ok || !f.Repairable || f.First == 0 || f.Last < f.First {
		return nil, fmt.Errorf("jetstream: not to be repaired: %s", f)
	}
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	files, err := s.export(f, dir)
	l.running.Done()
	if err != nil {
		return nil, fmt.Errorf("jetstream: saving what is left of %s %d-%d: %w", f.Stream, f.First, f.Last, err)
	}
	list, err := s.addTo(ctx, f)
	if err != nil {
		return files, err
	}
	value, err := json.Marshal(list)
	if err != nil {
		return files, err
	}
	if err := l.PutState(ctx, quarantineKey, value); err != nil {
		return files, err
	}
	for _, s := range l.streams {
		s.hide(list)
	}
	l.opts.Log.Warn("packs are in quarantine", "stream", f.Stream, "first", f.First, "last", f.Last, "files", files)
	return files, nil
}

// addTo gives the whole list with the packs of a fault in it, and without those that
// are trimmed.
func (s *stream) addTo(ctx context.Context, f bus.Fault) (list []quarantined, err error) {
	for _, other := range s.log.streams {
		other.quarantine.Lock()
		for seq, q := range other.hidden {
			if seq >= other.tail.start() && (other != s || seq < f.First || seq > f.Last) {
				list = append(list, q)
			}
		}
		other.quarantine.Unlock()
	}
	var key string
	if f.Kind != bus.FaultMissing {
		p, err := s.Get(ctx, f.First)
		if key = p.Key; err == nil && p.Time.IsZero() { // nothing is left of it
			key, err = s.surplus(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	for seq := f.First; seq <= f.Last; seq++ {
		list = append(list, quarantined{Stream: s.id, Seq: seq, Key: key, Gap: f.Kind == bus.FaultMissing})
	}
	return list, nil
}

// surplus is the key of which the server counts more packs than can be read.
func (s *stream) surplus(ctx context.Context) (key string, err error) {
	keys, err := s.Keys(ctx)
	if err != nil {
		return "", err
	}
	r, err := s.Read(ctx, "", 1)
	if err != nil {
		return "", err
	}
	defer r.Close() //nolint:errcheck // it holds nothing
	for {
		p, ok, err := r.TryNext(ctx)
		if err != nil {
			return "", err
		}
		if !ok {
			break
		}
		if !p.Time.IsZero() || p.Key != "" {
			keys[p.Key]--
		}
	}
	for k, n := range keys {
		if n > 0 && (key == "" || k < key) {
			key = k
		}
	}
	return key, nil
}

// deleted are the numbers that the server takes for removed, in order.
func (s *stream) deleted(ctx context.Context, e *engine) ([]uint64, error) {
	state, err := s.state(ctx, e, jetstream.WithDeletedDetails(true))
	if err != nil {
		return nil, err
	}
	slices.Sort(state.Deleted)
	return state.Deleted, nil
}

// export copies the blocks that the packs of a fault were in, and says what they are.
func (s *stream) export(f bus.Fault, dir string) (files []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	blocks, err := blocksOf(streamDir(s.log.opts.Dir, s.name), f.First, f.Last)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, fmt.Sprintf("%s-%d", s.name, f.First))
	for _, block := range blocks {
		to := name + "-" + filepath.Base(block)
		if err := copySynced(to, block); err != nil {
			return nil, err
		}
		files = append(files, to)
	}
	text, err := json.MarshalIndent(map[string]any{"fault": f, "stream_id": s.id, "blocks": blocks}, "", "  ")
	if err == nil {
		err = writeSynced(name+".json", append(text, '\n'))
	}
	if err == nil {
		err = syncPath(dir)
	}
	return append(files, name+".json"), err
}

// blocksOf are the block files of a stream that hold numbers from first to last, or
// did: each begins where the one before ends. One that is too short to tell counts.
func blocksOf(dir string, first, last uint64) (paths []string, err error) {
	all, err := filepath.Glob(filepath.Join(dir, "msgs", "*.blk"))
	if err != nil {
		return nil, err
	}
	type block struct {
		path  string
		first uint64
	}
	var blocks []block
	for _, path := range all {
		seq, err := firstOf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block{path, seq})
	}
	slices.SortFunc(blocks, func(a, b block) int { return int(min(max(int64(a.first)-int64(b.first), -1), 1)) })
	for i, b := range blocks {
		if b.first > last || i+1 < len(blocks) && b.first != 0 && blocks[i+1].first <= first {
			continue
		}
		paths = append(paths, b.path)
	}
	return paths, nil
}

// firstOf reads the number of a block's first message: 8 bytes behind the 4 of its
// length, of which the two highest bits are marks. 0 for a block without one.
func firstOf(path string) (uint64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	var head [12]byte
	if _, err := io.ReadFull(file, head[:]); err != nil {
		return 0, nil
	}
	return binary.LittleEndian.Uint64(head[4:]) &^ (3 << 62), nil
}

func copySynced(to, from string) error {
	b, err := os.ReadFile(from) // a block has 8 MiB, or one pack
	if err != nil {
		return err
	}
	return writeSynced(to, b)
}
