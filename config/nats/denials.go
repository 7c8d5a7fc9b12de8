package nats

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go"
)

// Denials are all that a connection was not allowed to do while somebody listens: the
// connection itself remembers the last only, and one that many publish on has several
// at a time.
type Denials struct {
	watch *Watch
	conn  *nats.Conn
	first error   // what the connection remembered before
	all   []error // guarded by the mutex of the watch
}

// Denials begins to listen, until Stop.
func (w *Watch) Denials(conn *nats.Conn) *Denials {
	d := &Denials{watch: w, conn: conn}
	w.mu.Lock()
	defer w.mu.Unlock()
	d.first = conn.LastError()
	w.denials = append(w.denials, d)
	return d
}

// Stop ends the listening.
func (d *Denials) Stop() {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	d.watch.denials = slices.DeleteFunc(d.watch.denials, func(other *Denials) bool { return other == d })
}

// All are those that the server has told so far. The client hands them on in the
// background, one after the other: it waits for the last.
func (d *Denials) All(ctx context.Context) ([]error, error) {
	last := d.conn.LastError()
	if last == d.first || !errors.Is(last, nats.ErrPermissionViolation) { //nolint:errorlint // whether there is another
		return nil, nil
	}
	for {
		d.watch.mu.Lock()
		all, changed := slices.Clone(d.all), d.watch.changed
		d.watch.mu.Unlock()
		if slices.ContainsFunc(all, func(told error) bool { return errors.Is(told, last) }) {
			return all, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
