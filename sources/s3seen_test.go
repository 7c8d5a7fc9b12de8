package sources

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someSeen(n int) (objects []seenObject) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for i := range n {
		objects = append(objects, seenObject{
			key: fmt.Sprintf("a/%03d/\n%s", i, strings.Repeat("ü", i%5)), size: int64(i) << 30,
			modified: at.Add(time.Duration(i) * time.Second), etag: strings.Repeat("e", i%40),
		})
	}
	return objects
}

func writeSeen(t *testing.T, path string, objects []seenObject) {
	t.Helper()
	w, done, err := resumeSeen(path, "about")
	if err != nil || done {
		t.Fatal(done, err)
	}
	for _, o := range objects {
		if err := w.add(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.finish(), w.file.Close()); err != nil {
		t.Fatal(err)
	}
}

func readSeen(t *testing.T, path string) ([]seenObject, error) {
	t.Helper()
	r, err := openSeen(path, "about")
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.close() }()
	var objects []seenObject
	for {
		o, err := r.next()
		if err != nil {
			return objects, err
		}
		objects = append(objects, o)
	}
}

func TestSeenFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seen")
	for _, n := range []int{0, 1, 100} {
		want := someSeen(n)
		_ = os.Remove(path)
		writeSeen(t, path, want)
		if got, err := readSeen(t, path); !errors.Is(err, io.EOF) || !reflect.DeepEqual(got, want) {
			t.Errorf("%d objects: read %v, %v", n, got, err)
		}
		if _, done, err := resumeSeen(path, "about"); !done || err != nil {
			t.Errorf("%d objects: the file is not done: %v", n, err)
		}
	}
	if _, err := openSeen(path, "another"); !errors.Is(err, errTorn) {
		t.Errorf("another listing: %v", err)
	}
}

// Wherever the file is cut, what is whole before the cut is read, and writing goes on
// there. A byte that changed is found.
func TestSeenTorn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seen")
	want := someSeen(12)
	writeSeen(t, path, want)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := len(seenHead("about"))
	for cutAt := range whole {
		if err := os.WriteFile(path, whole[:cutAt], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSeen(t, path)
		if !errors.Is(err, errTorn) || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Fatalf("cut at %d: %v, %v", cutAt, got, err)
		}
		w, done, err := resumeSeen(path, "about")
		if err != nil || done || w.count != uint64(len(got)) {
			t.Fatalf("cut at %d: resumed after %d, done %v, %v", cutAt, w.count, done, err)
		}
		for _, o := range want[len(got):] {
			if err := w.add(o); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.finish(), w.file.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(whole) {
			t.Fatalf("cut at %d: what was written on differs, %v", cutAt, err)
		}
		if cutAt < head {
			continue
		}
		bad := []byte(string(whole))
		bad[cutAt] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readSeen(t, path); !errors.Is(err, errTorn) || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Fatalf("changed at %d: %v, %v", cutAt, got, err)
		}
	}
}

func TestSeenTooLarge(t *testing.T) {
	t.Parallel()
	w, _, err := resumeSeen(filepath.Join(t.TempDir(), "seen"), "about")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.file.Close() }()
	if err := w.add(seenObject{key: strings.Repeat("k", seenMost)}); err == nil {
		t.Error("an object that cannot be read again is written")
	}
}

func FuzzSeenFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seen")
	w, _, err := resumeSeen(path, "about")
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range someSeen(3) {
		_ = w.add(o)
	}
	_ = errors.Join(w.finish(), w.file.Close())
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Fuzz(func(t *testing.T, doc []byte) {
		path := filepath.Join(t.TempDir(), "seen")
		if err := os.WriteFile(path, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		objects, _ := readSeen(t, path)
		for i := 1; i < len(objects); i++ {
			if objects[i].key <= objects[i-1].key {
				t.Errorf("out of order: %q after %q", objects[i].key, objects[i-1].key)
			}
		}
	})
}
