package sources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sluice/bus"
)

// s3Round lists a bucket once. Listing and the file of the last round have the same
// order, so they are compared by a merge, whatever the number of objects. What is
// through is written to the next file as soon as its events are durable: a round that
// was broken off goes on after the last object there.
type s3Round struct {
	poller *s3Poller
	client *s3.Client
	dir    string
	feed   feed

	old     *seenReader // nil in the first round
	ahead   seenObject  // the next object of old
	rest    bool        // there is one
	next    *seenWriter
	quiet   bool // the objects that exist make no events
	changed bool

	events []bus.Event // of keep and of objects that are gone
	keep   []seenObject
}

func (r *s3Round) run(ctx context.Context) (err error) {
	seen, next := r.poller.files(r.dir)
	about := r.poller.about()
	if err := r.openOld(seen, about); err != nil {
		return err
	}
	defer func() {
		if r.old != nil {
			_ = r.old.close()
		}
	}()
	w, done, err := resumeSeen(next, about)
	if err != nil {
		return fmt.Errorf("what was seen cannot be kept: %w", err)
	}
	r.next = w
	defer func() {
		if cerr := w.file.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	if !done {
		r.changed = r.old == nil || w.count > 0
		if err := r.merge(ctx); err != nil {
			return err
		}
		if !r.changed {
			return os.Remove(next)
		}
		if err := w.finish(); err != nil {
			return fmt.Errorf("what was seen cannot be kept: %w", err)
		}
	}
	return errors.Join(os.Rename(next, seen), syncDir(filepath.Dir(seen)))
}

// openOld opens what the last round saw. Without it this one is the first.
func (r *s3Round) openOld(seen, about string) error {
	old, err := openSeen(seen, about)
	switch {
	case err == nil:
		r.old = old
		return r.step()
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errTorn):
		r.poller.env.Log.Info("another bucket or prefix is listed than before: this is a first time")
	default:
		return err
	}
	r.quiet = r.poller.set.Existing == existingSkip
	return nil
}

// step moves on in the old file.
func (r *s3Round) step() (err error) {
	r.ahead, err = r.old.next()
	if r.rest = err == nil; r.rest || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("%s is damaged after %d objects: remove it, and the bucket counts as listed for the first time", r.old.file.Name(), r.old.count)
}

// merge compares the listing with the old file, after what is already through.
func (r *s3Round) merge(ctx context.Context) error {
	last := r.next.last
	for r.rest && last != "" && r.ahead.key <= last {
		if err := r.step(); err != nil {
			return err
		}
	}
	var token *string
	for after := last; ; {
		page, err := r.poller.list(ctx, r.client, after, token)
		if err != nil {
			return err
		}
		for _, o := range page.objects {
			if o.key <= last && last != "" {
				return fmt.Errorf("%s: the server lists %q after %q, not in the order of the keys: such a bucket cannot be polled",
					r.poller.set.where(), cut(o.key), cut(last))
			}
			last = o.key
			if err := r.compare(ctx, o); err != nil {
				return err
			}
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		if token = page.token; token == nil {
			break
		}
	}
	for r.rest {
		if err := r.gone(ctx); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// compare finds what happened to an object, and to those before it that are gone.
func (r *s3Round) compare(ctx context.Context, o seenObject) error {
	for r.rest && r.ahead.key < o.key {
		if err := r.gone(ctx); err != nil {
			return err
		}
	}
	known := r.rest && r.ahead.key == o.key
	fresh := !known || !r.ahead.same(o)
	if known {
		if err := r.step(); err != nil {
			return err
		}
	}
	if fresh {
		r.changed = true
	}
	if fresh && !r.quiet {
		if err := r.emit(ctx, s3Created, o); err != nil {
			return err
		}
	}
	r.keep = append(r.keep, o)
	return r.full(ctx)
}

// gone deals with the next object of the old file, which is no longer there.
func (r *s3Round) gone(ctx context.Context) error {
	r.changed = true
	if r.poller.set.Removed {
		if err := r.emit(ctx, s3Removed, r.ahead); err != nil {
			return err
		}
	}
	if err := r.step(); err != nil {
		return err
	}
	return r.full(ctx)
}

func (r *s3Round) emit(ctx context.Context, name string, o seenObject) error {
	e, err := r.poller.upload(name, o).event()
	if err == nil {
		r.events = append(r.events, e)
		return nil
	}
	bad := badRecord{raw: []byte(o.key), err: fmt.Errorf("the object %q: %w", cut(o.key), err)}.rejected()
	bad.Where = r.poller.set.Bucket
	return r.feed.reject(ctx, bad)
}

// full flushes when enough has gathered.
func (r *s3Round) full(ctx context.Context) error {
	if len(r.events) < s3Batch {
		return nil
	}
	return r.flush(ctx)
}

// flush makes the events durable and then notes that their objects are through. Once
// it has begun it goes on for a moment after the end of ctx.
func (r *s3Round) flush(ctx context.Context) error {
	if len(r.events) > 0 {
		late, cancel := lingering(ctx, r.poller.linger)
		defer cancel()
		if err := r.feed.publish(late, r.events...); err != nil {
			return err
		}
	}
	for _, o := range r.keep {
		if err := r.next.add(o); err != nil {
			return fmt.Errorf("what was seen cannot be kept: %w", err)
		}
	}
	if err := r.next.w.Flush(); err != nil {
		return fmt.Errorf("what was seen cannot be kept: %w", err)
	}
	r.events, r.keep = r.events[:0], r.keep[:0]
	return nil
}
