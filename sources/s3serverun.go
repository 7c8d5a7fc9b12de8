package sources

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"sluice/bus"
	"sluice/config/value"
)

// s3Server is the source of an S3 endpoint.
type s3Server struct {
	set   S3Serve
	env   Env
	keys  atomic.Pointer[s3Keys]
	once  sync.Once
	ready chan struct{}
	addr  atomic.Pointer[string] // where it listens, or did last
}

const (
	s3HeadTimeout = 10 * time.Second
	s3IdleTimeout = 2 * time.Minute
	s3MaxHead     = 32 << 10
	// s3Drain is how long requests under way may take when the source stops.
	s3Drain = 10 * time.Second
	// s3Chores is how often what is too old is looked for.
	s3Chores = 10 * time.Minute
)

// Ready is Readier.Ready.
func (s *s3Server) Ready() <-chan struct{} { return s.ready }

// Run is Source.Run. The address is bound while it runs.
func (s *s3Server) Run(ctx context.Context, pub bus.Publisher) (err error) {
	listener, err := s.listen()
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	db, err := openDatabase(s.env.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	out, err := newOutbox(db, pub, &s.env)
	if err != nil {
		return fmt.Errorf("the database of objects in %s: %w", s.env.Dir, err)
	}
	// The last: every request has ended, and what it settled is known.
	defer func() { err = errors.Join(err, out.forget()) }()
	backend, err := s.backend(ctx, db, out)
	if err != nil {
		return err
	}
	library := gofakes3.New(backend, gofakes3.WithLogger(s3Log{s.env.Log}), gofakes3.WithUnimplementedPageError())
	handler := library.Server()
	if err := backend.restore(ctx, handler); err != nil {
		return fmt.Errorf("the multipart uploads in %s: %w", s.env.Dir, err)
	}
	within, fail := context.WithCancelCause(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer fail(nil) // first, so that there is an end to wait for
	for _, inDoubt := range []bool{false, true} {
		beside(&working, fail, func() { out.run(within, inDoubt) })
	}
	beside(&working, fail, func() { s.tidy(within, backend, library) })
	if err := s.serve(within, listener, handler); err != nil || ctx.Err() != nil {
		return err
	}
	return context.Cause(within)
}

// s3Backend is where the objects are.
type s3Backend interface {
	gofakes3.Backend
	gofakes3.MultipartBackend
	// restore tells the library of the multipart uploads of an earlier process.
	restore(ctx context.Context, library http.Handler) error
	// uploads gives the multipart uploads that began before a time.
	uploads(before time.Time) (map[gofakes3.UploadID]partsUpload, error)
	// sweep removes what a crash left.
	sweep(ctx context.Context) error
	// expire removes the objects that were made before a time.
	expire(ctx context.Context, before time.Time) error
}

func (s *s3Server) backend(ctx context.Context, db *bbolt.DB, out *outbox) (s3Backend, error) {
	store := newObjectStore(db, s.env.Dir, int64(s.set.Limits.Object), out)
	disk := diskBackend{objectStore: store, buckets: s.set.Buckets}
	if s.set.Forward == nil {
		return &disk, nil
	}
	return newForwardBackend(ctx, s.set.Forward, disk)
}

func (s *s3Server) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", s.set.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for S3 on %s: %w: choose another address with serve.listen", s.set.Listen, err)
	}
	addr := listener.Addr().String()
	listener = netutil.LimitListener(listener, s.set.Limits.Connections)
	scheme := "http"
	if s.set.TLS.Cert != "" {
		pair := value.TLS{Cert: s.set.TLS.Cert, Key: s.set.TLS.Key}
		files, err := pair.Follow(func(err error) { s.env.Log.Warn("the S3 endpoint", "err", err) })
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve.%w: give the PEM files of a certificate and its key", err), listener.Close())
		}
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return files.Current(), nil },
		})
		scheme = "https"
	}
	s.addr.Store(&addr)
	s.env.Log.Info("the S3 endpoint listens", "endpoint", scheme+"://"+addr, "buckets", s.set.Buckets)
	return listener, nil
}

// serve answers until ctx ends, and then what is under way.
func (s *s3Server) serve(ctx context.Context, listener net.Listener, library http.Handler) error {
	// A request that outlives the drain still ends before the database is closed.
	var under sync.WaitGroup
	front := &s3Front{
		library: library, keys: &s.keys, domain: strings.ToLower(s.set.Domain), limits: s.set.Limits, log: s.env.Log, observe: s.env.observe,
		warn: rate.Sometimes{Interval: time.Minute},
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			under.Add(1)
			defer under.Done()
			front.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: s3HeadTimeout, IdleTimeout: s3IdleTimeout, MaxHeaderBytes: s3MaxHead,
		ErrorLog: slog.NewLogLogger(s.env.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	s.once.Do(func() { close(s.ready) })
	var err error
	select {
	case err = <-ended:
		err = fmt.Errorf("the S3 endpoint: %w", err)
	case <-ctx.Done():
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s3Drain)
		if server.Shutdown(drain) != nil {
			_ = server.Close() // uploads that take longer end here; clients send them again
		}
		cancel()
		if err = <-ended; errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
	}
	under.Wait()
	return err
}

// tidy removes what a crash left and what is too old, until ctx ends.
func (s *s3Server) tidy(ctx context.Context, objects s3Backend, library *gofakes3.GoFakeS3) {
	if err := objects.sweep(ctx); err != nil && ctx.Err() == nil {
		s.env.Log.Warn("cannot remove what a crash left of objects", "dir", s.env.Dir, "err", err)
	}
	for {
		now := time.Now()
		if err := reap(ctx, objects, now.Add(-time.Duration(s.set.Retain.Unfinished)), library); err != nil && ctx.Err() == nil {
			s.env.Log.Warn("cannot remove multipart uploads that are too old", "err", err)
		}
		if age := time.Duration(s.set.Retain.Age); age > 0 {
			if err := objects.expire(ctx, now.Add(-age)); err != nil {
				s.env.Log.Warn("cannot remove objects that are too old", "err", err)
			}
		}
		if pause(ctx, s3Chores) != nil {
			return
		}
	}
}

// reap removes the multipart uploads that began before a time. One that cannot be
// removed, such as one of which the other S3 will not let go, is tried again the next
// time and keeps no other.
func reap(ctx context.Context, objects s3Backend, before time.Time, library *gofakes3.GoFakeS3) error {
	found, err := objects.uploads(before)
	if err != nil {
		return err
	}
	var first error
	left := 0
	for id, u := range found {
		if err := objects.AbortMultipartUpload(ctx, u.Bucket, u.Key, id); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			left++
			first = cmp.Or(first, fmt.Errorf("that of %s/%s: %w", u.Bucket, u.Key, err))
			continue
		}
		// Of a complete one the library knows nothing any more.
		_ = library.ForgetMultipartUpload(ctx, u.Bucket, u.Key, id)
	}
	if left > 1 {
		return fmt.Errorf("%d of %d stay: %w", left, len(found), first)
	}
	return first
}

// expire removes the objects that were made before a time, as a client does.
func (b *diskBackend) expire(ctx context.Context, before time.Time) error {
	for _, bucket := range b.buckets {
		for after := ""; ; {
			old, next, err := b.older(bucket, after, before)
			if err != nil || ctx.Err() != nil {
				return err
			}
			if len(old) > 0 {
				if err := b.delete(removedExpired, before, old...); err != nil {
					return err
				}
			}
			if after = next; after == "" {
				break
			}
		}
	}
	return nil
}

// older looks through some keys for objects made before a time; next is where to go
// on, or "".
func (b *diskBackend) older(bucket, from string, before time.Time) (old []objectName, next string, err error) {
	const some = 500
	list, err := b.ListBucket(context.Background(), bucket, nil, gofakes3.ListBucketPage{Marker: from, MaxKeys: some})
	if err != nil {
		return nil, "", err
	}
	for _, c := range list.Contents {
		if c.LastModified.Before(before) {
			old = append(old, objectName{bucket, c.Key})
		}
	}
	return old, list.NextMarker, nil
}

// s3Log takes what the library logs.
type s3Log struct{ log *slog.Logger }

// Print is gofakes3.Logger.Print.
func (l s3Log) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr {
		l.log.Error("the S3 endpoint", "err", fmt.Sprint(v...))
	}
}
