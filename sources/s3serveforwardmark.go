package sources

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// markHeader is the metadata by which an upload is known again in the other S3.
const markHeader = "sluice-upload"

// callOf names a call of a client that uploads this content, the same for each of its
// attempts: "" when the client does not tell them apart.
func callOf(ctx context.Context, content string) string {
	id := invocationOf(ctx)
	if id == "" {
		return ""
	}
	const enough = 16 // bytes
	sum := sha256.Sum256([]byte(id + " " + content))
	return hex.EncodeToString(sum[:enough])
}

// markOf is the mark of an upload: its sequencer and its call.
func markOf(sequencer, call string) string {
	return sequencer + "-" + cmp.Or(call, rand.Text())
}

// sequencerOf is the sequencer in the mark of an object that this call has made, and ""
// for any other.
func sequencerOf(mark, call string) string {
	sequencer, of, _ := strings.Cut(mark, "-")
	if call == "" || of != call || sequencerTime(sequencer).IsZero() {
		return ""
	}
	return sequencer
}

// sequencerTime is when a sequencer was given out: the zero time for what is none.
func sequencerTime(sequencer string) time.Time {
	const hexadecimal, bits = 16, 64
	n, err := strconv.ParseInt(sequencer, hexadecimal, bits)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// forwardMeta is metadata as the SDK takes it.
type forwardMeta struct {
	mark string
	user map[string]string
	head map[string]string
}

func newForwardMeta(meta map[string]string, mark string) forwardMeta {
	m := forwardMeta{mark: mark, user: make(map[string]string), head: meta}
	for name, v := range meta {
		if user, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			m.user[strings.ToLower(user)] = v
		}
	}
	m.user[markHeader] = m.mark
	return m
}

func (m forwardMeta) get(name string) *string {
	if v := m.head[name]; v != "" {
		return &v
	}
	return nil
}
