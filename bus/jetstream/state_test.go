package jetstream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/jetstream"
)

// stateCopies are the streams that the table of state is kept in.
func stateCopies() []string { return []string{"STATE", "STATE_COPY"} }

func mustPut(t *testing.T, l *jetstream.Log, key, value string) {
	t.Helper()
	if err := l.PutState(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// filledState is the directory of a log with some state, after a crash: that in which
// it is open yet. values is what its table says.
func filledState(t *testing.T) (dir string, values map[string]string) {
	t.Helper()
	opts := small(t.TempDir())
	l := open(t, opts)
	values = map[string]string{}
	for i := range 4 {
		for _, key := range []string{"hold.a", "ledgers", "lease-key"} {
			values[key] = fmt.Sprint(key, " is ", i)
			mustPut(t, l, key, values[key])
		}
	}
	mustPut(t, l, "job.1", "gone")
	if err := l.PutState(t.Context(), "job.1", nil); err != nil {
		t.Fatal(err)
	}
	return copied(t, opts.Dir), values
}

// copied is a copy of a directory as it is now, as a crash would leave it.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestDamagedState flips a byte here and there in one copy of the table of state: no
// entry is lost, none is as it was before, and what was mended stays so.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	crashed, values := filledState(t)
	opts := small(copied(t, crashed))
	mustClose(t, open(t, opts))
	for state, dir := range map[string]string{"crashed": crashed, "closed": opts.Dir} {
		for _, stream := range stateCopies() {
			t.Run(state+"/"+stream, func(t *testing.T) {
				t.Parallel()
				size := len(block(t, dir, stream))
				for at := 0; at < size; at += size/16 + 1 {
					opts := small(copied(t, dir))
					b := block(t, opts.Dir, stream)
					b[at] ^= 0x20
					damageBlock(t, opts.Dir, stream, b)
					for range 2 {
						l := open(t, opts)
						wantValues(t, l, values)
						for key, value := range values { // nats-server may not take it over what is damaged
							mustPut(t, l, key, value)
						}
						mustClose(t, l)
					}
				}
			})
		}
	}
}

func block(t *testing.T, dir, stream string) []byte {
	t.Helper()
	b, err := os.ReadFile(streamFiles(t, dir, stream, "msgs/*.blk")[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func damageBlock(t *testing.T, dir, stream string, b []byte) {
	t.Helper()
	if err := os.WriteFile(streamFiles(t, dir, stream, "msgs/*.blk")[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantValues checks all that the table says.
func wantValues(t *testing.T, l *jetstream.Log, values map[string]string) {
	t.Helper()
	for key, want := range values {
		if got, err := l.State(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", key, got, err, want)
		}
	}
	if _, err := l.State(t.Context(), "job.1"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("a removed key: %v", err)
	}
	if keys, err := l.StateKeys(t.Context(), ""); err != nil || len(keys) != len(values) {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

// TestLostState takes files of one copy away, or a part: the log, and Check, say so.
func TestLostState(t *testing.T) {
	t.Parallel()
	crashed, values := filledState(t)
	for name, damage := range map[string]func(t *testing.T, dir, stream string){
		"cut": func(t *testing.T, dir, stream string) {
			damageBlock(t, dir, stream, block(t, dir, stream)[:100])
		},
		"no block": func(t *testing.T, dir, stream string) { remove(t, streamFiles(t, dir, stream, "msgs/*.blk")[0]) },
		"no stream": func(t *testing.T, dir, stream string) {
			if err := os.RemoveAll(filepath.Dir(streamFiles(t, dir, stream, "meta.inf")[0])); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, stream := range stateCopies() {
			t.Run(name+"/"+stream, func(t *testing.T) {
				t.Parallel()
				opts, log := logged(t)
				opts.Dir = copied(t, crashed)
				l := open(t, opts)
				mustClose(t, l)
				damage(t, opts.Dir, stream)
				l = open(t, opts)
				wantValues(t, l, values)
				faults := check(t, l)
				if len(faults) != 1 || faults[0].Stream != stream || faults[0].Kind != bus.FaultMended || !strings.Contains(faults[0].Detail, "lease-key") {
					t.Errorf("%v", faults)
				}
				if !strings.Contains(log.String(), "the table of state was damaged") {
					t.Errorf("the log does not tell of it:\n%s", log)
				}
				mustClose(t, l)
				l = open(t, opts)
				wantValues(t, l, values)
				if faults := check(t, l); len(faults) > 0 {
					t.Errorf("it was not mended: %v", faults)
				}
			})
		}
	}
}

// TestUnreadableState damages an entry in both copies: it is told from one that never
// was, the others are read, and the log opens.
func TestUnreadableState(t *testing.T) {
	t.Parallel()
	crashed, values := filledState(t)
	opts := small(crashed)
	mustClose(t, open(t, opts))
	for _, stream := range stateCopies() {
		b := block(t, opts.Dir, stream)
		b[strings.LastIndex(string(b), "hold.a is 3")] ^= 1
		damageBlock(t, opts.Dir, stream, b)
	}
	l := open(t, opts)
	if _, err := l.State(t.Context(), "hold.a"); !errors.Is(err, bus.ErrDamaged) {
		t.Errorf("an entry that no copy has whole: %v", err)
	}
	if keys, err := l.StateKeys(t.Context(), "hold."); err != nil || len(keys) != 1 {
		t.Errorf("keys: %v, %v", keys, err)
	}
	if faults := check(t, l); len(faults) != 1 || faults[0].Kind != bus.FaultDamaged || faults[0].Stream != "STATE" {
		t.Errorf("%v", faults)
	}
	mustPut(t, l, "hold.a", values["hold.a"])
	wantValues(t, l, values)
}

// TestStateOfAnEarlierRelease opens a log that has one copy of the table.
func TestStateOfAnEarlierRelease(t *testing.T) {
	t.Parallel()
	crashed, values := filledState(t)
	opts, log := logged(t)
	opts.Dir = crashed
	if err := os.RemoveAll(filepath.Dir(streamFiles(t, opts.Dir, "STATE_COPY", "meta.inf")[0])); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(opts.Dir, "streams.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Version int               `json:"version"`
		Streams map[string]string `json:"streams"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	delete(m.Streams, "STATE_COPY")
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, inspect := range []bool{true, false, false} {
		opts.Inspect = inspect
		l := open(t, opts)
		wantValues(t, l, values)
		if faults := check(t, l); len(faults) > 0 || log.String() != "" {
			t.Errorf("%v\n%s", faults, log)
		}
		mustClose(t, l)
	}
	remove(t, streamFiles(t, opts.Dir, "STATE", "msgs/*.blk")[0])
	wantValues(t, open(t, opts), values)
}

// TestRemovedStateGoes removes many keys: the table does not grow with them, and no
// crash brings one back.
func TestRemovedStateGoes(t *testing.T) {
	t.Parallel()
	opts, values := small(t.TempDir()), map[string]string{"lease-key": "the key", "ledgers": "the ledgers"}
	opts.Sync = time.Hour
	l := open(t, opts)
	mustPut(t, l, "lease-key", values["lease-key"])
	for i := range 300 {
		key := fmt.Sprint("job.", i)
		mustPut(t, l, key, "a job")
		if err := l.PutState(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, l, "ledgers", values["ledgers"])
	mustPut(t, l, "job.1", "gone")
	if err := l.PutState(t.Context(), "job.1", nil); err != nil {
		t.Fatal(err)
	}
	crashed := copied(t, opts.Dir)
	mustClose(t, l)
	for _, dir := range []string{opts.Dir, crashed} {
		opts.Dir = dir
		l := open(t, opts)
		wantValues(t, l, values)
		for _, dir := range []string{dir, copied(t, dir)} {
			if dir == opts.Dir {
				mustClose(t, l)
			}
			opts.Dir = dir
			l := open(t, opts)
			wantValues(t, l, values)
			if faults := check(t, l); len(faults) > 0 {
				t.Errorf("%v", faults)
			}
			if n := l.Usage().Stored; n > 2000 {
				t.Errorf("the table takes %d bytes", n)
			}
			mustClose(t, l)
		}
	}
}
