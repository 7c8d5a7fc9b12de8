package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

const idMetadata = "sluice_id"

// share is the part of MaxBytes, in twentieths, that all streams together may have
// taken for one of them to take more: when no more is accepted, what was accepted
// can still be spilled, retried and given up.
func share(stream string) int64 {
	switch stream {
	case bus.Events:
		return 16
	case bus.Backlog:
		return 18
	case bus.Retries:
		return 19
	default:
		return 20
	}
}

// streamConfig is how a stream is kept. Its own limit is the most that it may have
// were the others empty: Append sees to the sum.
func streamConfig(name, id string, opts Options) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              name,
		Subjects:          []string{name + ".>"},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy, // nothing goes but what we remove
		Discard:           jetstream.DiscardNew,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxBytes:          opts.MaxBytes / 20 * share(name),
		MaxMsgSize:        -1,
		Replicas:          1,
		Duplicates:        time.Second, // unused, and a restart reads the last window back
		AllowDirect:       true,
		Metadata:          map[string]string{idMetadata: id},
	}
	if isState(name) {
		c.MaxMsgsPerSubject, c.MaxBytes = 1, -1
	}
	return c
}

// ensureStreams makes the streams that are not there, mends those that lost their
// meta file, and gives the ids of all.
func ensureStreams(ctx context.Context, e *engine, opts Options, report func(bus.Fault)) (map[string]string, error) {
	known, err := readManifest(opts.Dir)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		opts.Log.Error("the list of streams is damaged and is made anew from the streams", "file", manifestName, "err", err)
		report(bus.Fault{Index: -1, Kind: bus.FaultMended, Detail: "the list of streams, " + manifestName + ", was damaged, and was made anew from the streams"})
	} else if err != nil {
		return nil, err
	}
	ids := manifest{Version: 1, Streams: map[string]string{}, Heads: known.Heads, Closed: known.Closed}
	var absent []string
	for _, name := range ownStreams() {
		found, err := e.js.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			absent = append(absent, name)
			ids.Streams[name] = absentID(name, known, opts, report)
		case err != nil:
			return nil, fmt.Errorf("stream %s: %w", name, err)
		default:
			ids.Streams[name] = adopt(ctx, e, found.CachedInfo().Config, known, opts)
		}
	}
	if len(absent) > 0 || !sameIDs(known, ids) {
		if err := ids.write(opts.Dir); err != nil {
			return nil, fmt.Errorf("writing the list of streams: %w", err)
		}
	}
	for _, name := range absent {
		if err := makeStream(ctx, e, name, ids.Streams[name], known, opts, report); err != nil {
			return nil, err
		}
	}
	return ids.Streams, nil
}

// adopt gives the id of a stream that is there, and configures the stream anew if
// the options have changed. On a full volume it cannot be, and does well as it is.
func adopt(ctx context.Context, e *engine, is jetstream.StreamConfig, known manifest, opts Options) string {
	id := cmp.Or(is.Metadata[idMetadata], known.Streams[is.Name], rand.Text())
	want := streamConfig(is.Name, id, opts)
	if is.MaxBytes == want.MaxBytes && is.Metadata[idMetadata] == id {
		return id
	}
	if _, err := e.js.UpdateStream(ctx, want); err != nil {
		opts.Log.Warn("a stream keeps its old limits", "stream", is.Name, "err", err)
	}
	return id
}

// absentID is the id for a stream that JetStream does not know: the one it had, if
// its blocks are still there to be picked up.
func absentID(name string, known manifest, opts Options, report func(bus.Fault)) string {
	id, was := known.Streams[name]
	switch {
	case was && hasBlocks(opts.Dir, name):
		return id
	case was && isState(name): // what it held is in the other copy
	case was:
		opts.Log.Error("a stream is lost with all its content, a new one is made", "stream", name)
		report(bus.Fault{Stream: name, Index: -1, Kind: bus.FaultLost, Detail: "the stream was gone with all its content; a new one was made"})
	case hasBlocks(opts.Dir, name):
		opts.Log.Error("a stream is unknown but has blocks, which are picked up", "stream", name)
	}
	return rand.Text()
}

// makeStream creates a stream. Under a name whose blocks are on disk, JetStream
// picks these up.
func makeStream(ctx context.Context, e *engine, name, id string, known manifest, opts Options, report func(bus.Fault)) error {
	had := hasBlocks(opts.Dir, name)
	made, err := e.js.CreateStream(ctx, streamConfig(name, id, opts))
	if err != nil {
		return fmt.Errorf("making stream %s: %w", name, err)
	}
	if had {
		info := made.CachedInfo().State
		opts.Log.Error("the meta file of a stream was damaged; the stream was made again from its blocks",
			"stream", name, "packs", info.Msgs, "first", info.FirstSeq, "last", info.LastSeq, "same", known.Streams[name] == id)
		report(bus.Fault{
			Stream: name, Index: -1, Kind: bus.FaultMended,
			Detail: fmt.Sprintf("the meta file was damaged; the stream was made again from its blocks, with %d packs up to %d", info.Msgs, info.LastSeq),
		})
	}
	return nil
}

func hasBlocks(dir, stream string) bool {
	blocks, err := filepath.Glob(filepath.Join(streamDir(dir, stream), "msgs", "*.blk"))
	if err != nil {
		return false
	}
	for _, b := range blocks {
		if st, err := os.Stat(b); err == nil && st.Size() > 0 {
			return true
		}
	}
	return false
}

// streamDir is where nats-server keeps a stream.
func streamDir(dir, stream string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream)
}

func sameIDs(a, b manifest) bool {
	for name, id := range b.Streams {
		if a.Streams[name] != id {
			return false
		}
	}
	return true
}
