package sources

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"

	"sluice/bus"
)

// diskOn is the backend of an S3 endpoint with one bucket.
func diskOn(t *testing.T, pub bus.Publisher) *diskBackend {
	t.Helper()
	dir := t.TempDir()
	db, err := openDatabase(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	out, err := newOutbox(db, pub, &Env{})
	if err != nil {
		t.Fatal(err)
	}
	return &diskBackend{objectStore: newObjectStore(db, dir, 1<<20, out), buckets: []string{"up"}}
}

// yes stores everything.
func yes(events []bus.Event) ([]bus.Result, error) { return make([]bus.Result, len(events)), nil }

// fill notes uploads, half of them older than the others.
func fill(t *testing.T, b *diskBackend, n int, etag string) {
	t.Helper()
	err := b.db.Update(func(tx *bbolt.Tx) error {
		for i := range n {
			id := fmt.Sprintf("%s%04d", etag, i)
			if _, err := tx.Bucket([]byte(tableParts)).CreateBucket([]byte(id)); err != nil {
				return err
			}
			u := partsUpload{Bucket: "up", Key: id, Begun: time.Unix(int64(i), 0), Created: etag}
			if err := putJSON(tx.Bucket([]byte(tableUploads)), id, u); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Uploads that are complete are remembered, but stand in nobody's way: the newer ones of
// them for longer.
func TestS3ServeUploadsThatAreComplete(t *testing.T) {
	t.Parallel()
	b := diskOn(t, pubFunc(yes))
	fill(t, b, maxUploads, "done")
	if err := b.begin("new", partsUpload{Bucket: "up", Key: "k", Begun: time.Now()}); err != nil {
		t.Fatalf("after %d uploads were complete: %v", maxUploads, err)
	}
	known, err := b.uploads(time.Now().Add(time.Hour))
	if err != nil || len(known) != maxUploads/2+1 || known["new"].Key == "" || known[gofakes3.UploadID(fmt.Sprintf("done%04d", maxUploads-1))].Key == "" {
		t.Errorf("%d are known, %v", len(known), err)
	}
}

func TestS3ServeTooManyUploads(t *testing.T) {
	t.Parallel()
	b := diskOn(t, pubFunc(yes))
	fill(t, b, maxUploads, "")
	if err := b.begin("new", partsUpload{}); !gofakes3.HasErrorCode(err, gofakes3.ErrSlowDown) {
		t.Errorf("beside %d open ones: %v", maxUploads, err)
	}
}

// An object that is uploaded anew while the old one is about to expire stays.
func TestS3ServeExpiresNothingNew(t *testing.T) {
	t.Parallel()
	b := diskOn(t, pubFunc(yes))
	name := objectName{"up", "k"}
	put := func() {
		if _, err := b.create(context.Background(), name, &objectRecord{ETag: "e"}, createdPut, nil); err != nil {
			t.Fatal(err)
		}
	}
	put()
	before := time.Now().UTC()
	old, _, err := b.older("up", "", before.Add(time.Hour))
	if err != nil || len(old) != 1 {
		t.Fatalf("%v, %v", old, err)
	}
	put()
	if err := b.delete(removedExpired, before, old...); err != nil {
		t.Fatal(err)
	}
	if rec, err := b.record(name); err != nil || rec == nil {
		t.Errorf("the new object is gone: %v", err)
	}
}

// What the bus does not take is owed, and nothing more is stored once that is much.
func TestS3ServeOwesNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	b := diskOn(t, pubFunc(func(events []bus.Event) ([]bus.Result, error) {
		results := make([]bus.Result, len(events))
		for i := range results {
			results[i].Err = bus.ErrFull
		}
		return results, bus.ErrFull
	}))
	for i := range maxOwed - 1 {
		b.out.waiting[objectName{"up", fmt.Sprint(i)}] = nil
	}
	for _, c := range []struct {
		key    string
		stored bool
	}{{"last", true}, {"more", false}} {
		stored, err := b.create(context.Background(), objectName{"up", c.key}, &objectRecord{ETag: "e"}, createdPut, nil)
		if stored != c.stored || !gofakes3.HasErrorCode(err, gofakes3.ErrSlowDown) {
			t.Errorf("%s: stored %v, %v", c.key, stored, err)
		}
	}
	if rec, err := b.record(objectName{"up", "more"}); err != nil || rec != nil {
		t.Errorf("what was refused is there: %+v, %v", rec, err)
	}
}

// The clock was an hour ahead and was set back while the endpoint was down: what happens
// to an object still comes after what happened to it before, as its sequencer tells.
func TestS3ServeSequencers(t *testing.T) {
	t.Parallel()
	b, name := diskOn(t, pubFunc(yes)), objectName{"up", "key"}
	ahead := time.Now().Add(time.Hour)
	last := b.out.sequencer(ahead)
	u := upload{name: createdPut, bucket: name.bucket, key: name.key, sequencer: last, at: ahead}
	e, err := u.event()
	if err == nil {
		_, err = b.commit(change{name: name, record: &objectRecord{Sequencer: last}, event: e})
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := newOutbox(b.db, pubFunc(yes), &Env{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		next := again.sequencer(time.Now())
		if next <= last {
			t.Errorf("%s comes after %s", next, last)
		}
		last = next
	}
}

// A change has as long as its bytes may take, and never for ever: nobody else may change
// the object meanwhile.
func TestS3ServeForwardPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for size, want := range map[int64]time.Duration{0: time.Minute, 1 << 20: 76 * time.Second, 64 << 20: 1084 * time.Second, 5 << 30: time.Hour} {
			ctx, cancel := sending(t.Context(), size)
			until, _ := ctx.Deadline()
			if got := time.Until(until); got != want {
				t.Errorf("%d bytes may take %v, want %v", size, got, want)
			}
			cancel()
		}
	})
}
