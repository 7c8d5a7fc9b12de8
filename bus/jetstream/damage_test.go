package jetstream_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/bus/jetstream"
)

func streamFiles(t *testing.T, dir, stream, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", stream, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s of %s: %v", pattern, stream, err)
	}
	return files
}

func mustAppend(t *testing.T, s bus.Stream, key string, records ...string) uint64 {
	t.Helper()
	raw := make([][]byte, len(records))
	for i, r := range records {
		raw[i] = []byte(r)
	}
	seq, err := s.Append(t.Context(), key, raw)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// readAll gives the records of a stream by pack, a damaged one as "?".
func readAll(t *testing.T, s bus.Stream, key string) map[uint64]string {
	t.Helper()
	r, err := s.Read(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[uint64]string{}
	for {
		p, ok, err := r.TryNext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		var text []string
		for _, record := range p.Records {
			if record == nil {
				text = append(text, "?")
			} else {
				text = append(text, string(record))
			}
		}
		got[p.Seq] = strings.Join(text, " ")
	}
}

func mustClose(t *testing.T, l *jetstream.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTornMeta damages what nats-server knows a stream by.
func TestTornMeta(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func(t *testing.T, dir string){
		"meta.inf cut":     func(t *testing.T, dir string) { truncate(t, streamFiles(t, dir, bus.Events, "meta.inf")[0], 20) },
		"meta.inf empty":   func(t *testing.T, dir string) { truncate(t, streamFiles(t, dir, bus.Events, "meta.inf")[0], 0) },
		"meta.inf is gone": func(t *testing.T, dir string) { remove(t, streamFiles(t, dir, bus.Events, "meta.inf")[0]) },
		"meta.sum cut":     func(t *testing.T, dir string) { truncate(t, streamFiles(t, dir, bus.Events, "meta.sum")[0], 3) },
		"manifest cut":     func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "streams.json"), 30) },
		"manifest is gone": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "streams.json")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, log := logged(t)
			l := open(t, opts)
			id := l.Stream(bus.Events).ID()
			for i := range 10 {
				mustAppend(t, l.Stream(bus.Events), "k", fmt.Sprint("event ", i))
			}
			mustClose(t, l)
			tear(t, opts.Dir)
			log.Reset()
			s := open(t, opts).Stream(bus.Events)
			if s.ID() != id {
				t.Errorf("the id changed from %s to %s", id, s.ID())
			}
			if got := readAll(t, s, ""); len(got) != 10 || got[10] != "event 9" {
				t.Errorf("read %v", got)
			}
			if seq := mustAppend(t, s, "k", "more"); seq != 11 {
				t.Errorf("the next number is %d, want 11", seq)
			}
			if strings.Contains(name, "meta") && !strings.Contains(log.String(), "made again from its blocks") {
				t.Errorf("the log does not tell of it:\n%s", log.String())
			}
		})
	}
}

// TestFlippedByte flips one byte of a pack in the middle of a block.
func TestFlippedByte(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"victim", "BACKLOG.k", "SP"} {
		for _, key := range []string{"", "k"} {
			t.Run(target+"/key="+key, func(t *testing.T) {
				t.Parallel()
				opts, log := logged(t)
				l := open(t, opts)
				for i := range 9 {
					text := fmt.Sprint("event ", i)
					if i == 4 {
						text = "victim"
					}
					mustAppend(t, l.Stream(bus.Backlog), "k", text, "other")
				}
				mustClose(t, l)
				flip(t, streamFiles(t, opts.Dir, bus.Backlog, "msgs/*.blk")[0], target)
				log.Reset()
				s := open(t, opts).Stream(bus.Backlog)
				got := readAll(t, s, key)
				if len(got) != 9 || !strings.Contains(got[5], "?") {
					t.Errorf("pack 5 is not reported as damaged: %v", got)
				}
				for seq := range uint64(9) {
					if want := fmt.Sprintf("event %d other", seq); seq != 4 && got[seq+1] != want {
						t.Errorf("pack %d is %q, want %q", seq+1, got[seq+1], want)
					}
				}
				if p, err := s.Get(t.Context(), 5); err != nil || !slices.ContainsFunc(p.Records, func(r []byte) bool { return r == nil }) {
					t.Errorf("Get of the damaged pack: %q, %v", p.Records, err)
				}
				if !strings.Contains(log.String(), "seq=5") {
					t.Errorf("the log does not tell of it:\n%s", log.String())
				}
				if err := s.Remove(t.Context(), 5); err != nil {
					t.Errorf("removing the damaged pack: %v", err)
				}
				if err := s.Trim(t.Context(), "", 7); err != nil {
					t.Errorf("trimming the damaged pack: %v", err)
				}
				if got := readAll(t, s, key); len(got) != 3 {
					t.Errorf("after trimming: %v", got)
				}
			})
		}
	}
}

// flip changes one byte of the fifth record that has the text in it.
func flip(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("victim"))
	if text != "victim" {
		at = bytes.LastIndex(b[:at], []byte(text))
	}
	if at < 0 {
		t.Fatalf("%s has no %q", path, text)
	}
	b[at] ^= 0x20
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
