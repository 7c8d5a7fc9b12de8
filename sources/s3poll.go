package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sluice/bus"
	"sluice/config/value"
)

// S3Poll are the settings of a bucket that is listed from time to time.
type S3Poll struct {
	S3Remote `yaml:",inline"`

	Prefix   string         `yaml:"prefix" doc:"Only objects whose keys begin with it."`
	Every    value.Duration `yaml:"every" doc:"How often the bucket is listed. The default is 1m."`
	Existing string         `yaml:"existing" enum:"emit,skip" doc:"What becomes of the objects that are there the first time: emit (the default) makes events of them, skip does not."`
	Removed  bool           `yaml:"removed" doc:"Make events of objects that are gone, too."`
}

// The values of S3Poll.Existing.
const (
	existingEmit = "emit"
	existingSkip = "skip"
)

// The limits of listing.
const (
	s3Every      = time.Minute
	s3PageTime   = time.Minute // for one page, with what the SDK repeats
	s3PageLimit  = 16 << 20    // bytes of one page
	s3Batch      = 256         // events in flight
	s3Linger     = 5 * time.Second
	s3RetryFirst = time.Second
	s3RetryMax   = 5 * time.Minute
)

// Validate finds what a single value cannot show. The keys are those of S3Poll.
func (s *S3Poll) Validate() value.Faults {
	faults := s.faults()
	if s.Existing != "" && s.Existing != existingEmit && s.Existing != existingSkip {
		faults.Add("existing", "%q is neither %s nor %s", s.Existing, existingEmit, existingSkip)
	}
	return faults
}

// open makes the source.
func (s *S3Poll) open(_ context.Context, env Env) (Source, error) {
	p := &s3Poller{set: *s, env: &env, linger: s3Linger}
	if p.set.Every == 0 {
		p.set.Every = value.Duration(s3Every)
	}
	return p, nil
}

// s3Poller lists a bucket and makes events of what differs from the last time.
type s3Poller struct {
	set    S3Poll
	env    *Env
	linger time.Duration // how long a batch may take after the end of Run's ctx
}

// Run is Source.Run. What the server answers is its own business: it tries again, and
// reports the error meanwhile.
func (p *s3Poller) Run(ctx context.Context, pub bus.Publisher) error {
	client, err := p.set.client(ctx, s3PageLimit)
	if err != nil {
		return err
	}
	dir := p.env.Dir
	if dir == "" { // a bus that keeps nothing: neither does this
		if dir, err = os.MkdirTemp("", "sluice-s3-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory for what was seen: %w", err)
	}
	wait := s3RetryFirst
	for {
		start := time.Now()
		round := s3Round{poller: p, client: client, dir: dir, feed: feed{p.env, pub}}
		err := round.run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p.env.report(err)
			p.env.Log.Warn("the bucket is not listed", "err", err, "again_in", wait)
			if pause(ctx, wait) != nil {
				return nil
			}
			wait = min(2*wait, max(time.Duration(p.set.Every), s3RetryFirst), s3RetryMax)
		default:
			p.env.report(nil)
			wait = s3RetryFirst
			if !sleep(ctx, time.Duration(p.set.Every)-time.Since(start)) {
				return nil
			}
		}
	}
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// about names what is listed. Another listing begins anew.
func (p *s3Poller) about() string {
	endpoint := ""
	if !p.set.Endpoint.IsZero() {
		endpoint = p.set.Endpoint.Host + p.set.Endpoint.Path
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", endpoint, p.set.Bucket, p.set.Prefix))
	return hex.EncodeToString(sum[:])
}

// page is one answer of the server.
type s3Page struct {
	objects []seenObject
	token   *string // of the next page; nil after the last
}

// list fetches the page with that token, or the first one after the key.
func (p *s3Poller) list(ctx context.Context, client *s3.Client, after string, token *string) (page s3Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, s3PageTime)
	defer cancel()
	in := &s3.ListObjectsV2Input{
		Bucket: aws.String(p.set.Bucket), ContinuationToken: token,
		// XML cannot hold every character that a key may have.
		EncodingType: types.EncodingTypeUrl,
	}
	if p.set.Prefix != "" {
		in.Prefix = aws.String(p.set.Prefix)
	}
	if token == nil && after != "" {
		in.StartAfter = aws.String(after)
	}
	out, err := client.ListObjectsV2(ctx, in)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s: %w", s3PageTime, ctx.Err())
		}
		return page, p.set.explain(err)
	}
	if aws.ToString(out.Name) == "" {
		// The SDK takes any answer for an empty listing: all objects would be gone.
		return page, fmt.Errorf("%s: what answers there is no S3, check endpoint", p.set.where())
	}
	for i := range out.Contents {
		o, err := seenOf(&out.Contents[i], out.EncodingType == types.EncodingTypeUrl)
		if err != nil {
			return page, fmt.Errorf("%s: %w", p.set.where(), err)
		}
		page.objects = append(page.objects, o)
	}
	if aws.ToBool(out.IsTruncated) {
		page.token = out.NextContinuationToken
		if page.token == nil || token != nil && *page.token == *token {
			return page, fmt.Errorf("%s: the server breaks off its listing without saying how to go on", p.set.where())
		}
	}
	return page, nil
}

func seenOf(o *types.Object, encoded bool) (seenObject, error) {
	seen := seenObject{
		key: aws.ToString(o.Key), size: aws.ToInt64(o.Size), modified: aws.ToTime(o.LastModified).UTC(),
		etag: plainETag(aws.ToString(o.ETag)),
	}
	if seen.key == "" {
		return seen, errors.New("the server lists an object without a key")
	}
	var err error
	if encoded {
		if seen.key, err = url.QueryUnescape(seen.key); err != nil {
			return seen, fmt.Errorf("the server lists a key that is not encoded as it says: %w", err)
		}
	}
	return seen, nil
}

// upload is the event of an object: name says what happened to it.
func (p *s3Poller) upload(name string, o seenObject) upload {
	u := upload{
		name: name, bucket: p.set.Bucket, key: o.key, size: o.size, etag: o.etag, region: p.set.Region, at: o.modified,
	}
	if name == s3Removed {
		// Nobody knows when. The same content may come and go twice, though.
		u.salt, u.at = u.time(), time.Time{}
	}
	return u
}

// What a listing can tell.
const (
	s3Created = "ObjectCreated"
	s3Removed = "ObjectRemoved"
)

func (p *s3Poller) files(dir string) (seen, next string) {
	return filepath.Join(dir, "seen"), filepath.Join(dir, "seen.next")
}
