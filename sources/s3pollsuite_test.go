package sources_test

import (
	"context"
	"crypto/md5" //nolint:gosec // an ETag
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// pollSubject is a source that polls a bucket. An object is acknowledged once the
// source has it in its file: then it is not told again.
func pollSubject(t *testing.T) *sourcetest.Subject {
	backend := s3mem.New()
	if err := backend.CreateBucket(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	endpoint, err := value.ParseURL(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := sources.NewS3()
	s.Poll = &sources.S3Poll{
		S3Remote: sources.S3Remote{Endpoint: endpoint, Bucket: "in", AccessKey: "k", SecretKey: value.NewSecret("s")},
		Every:    value.Duration(5 * time.Millisecond),
	}
	h := sourcetest.NewHost(t)
	dir := h.Env().Dir
	var version atomic.Int64
	return &sourcetest.Subject{
		Source: byKey{h.Open(t, s)},
		Send: func(ctx context.Context, e bus.Event) error {
			text := fmt.Sprint("version ", version.Add(1))
			if _, err := backend.PutObject(ctx, "in", e.ID(), nil, strings.NewReader(text), int64(len(text))); err != nil {
				return err
			}
			sum := md5.Sum([]byte(text)) //nolint:gosec // an ETag
			for want := hex.EncodeToString(sum[:]); sources.PollSaw(s, dir, e.ID()) != want; {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(2 * time.Millisecond):
				}
			}
			return nil
		},
	}
}

func TestPollSuite(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, pollSubject)
}

// A source says what is wrong while it lasts, and that it is well again.
func TestPollReports(t *testing.T) {
	t.Parallel()
	backend := s3mem.New()
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	endpoint, err := value.ParseURL(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := sources.NewS3()
	s.Poll = &sources.S3Poll{
		S3Remote: sources.S3Remote{Endpoint: endpoint, Bucket: "late", AccessKey: "k", SecretKey: value.NewSecret("marker-secret")},
		Every:    value.Duration(5 * time.Millisecond),
	}
	pub := &sourcetest.Publisher{}
	h := s3Running(t, s, pub)
	until(t, "the missing bucket is reported", func() bool {
		err := h.Reported()
		return err != nil && strings.Contains(err.Error(), "there is no such bucket") && !strings.Contains(err.Error(), "marker-secret")
	})
	if err := backend.CreateBucket(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.PutObject(t.Context(), "late", "a", nil, strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	until(t, "the object is told and the report taken back", func() bool {
		return len(pub.Stored()) == 1 && h.Reported() == nil
	})
}
