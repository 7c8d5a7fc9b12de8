package sources_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

const s3Token = "sekret"

func s3Settings() *sources.S3 {
	s := sources.NewS3()
	s.Path, s.Auth.Bearer = "/in/uploads", value.Secrets{value.NewSecret(s3Token), value.NewSecret("the next one")}
	return s
}

// s3Running is an s3 source that takes notifications until the test ends.
func s3Running(t *testing.T, s *sources.S3, pub bus.Publisher) *sourcetest.Host {
	t.Helper()
	h := sourcetest.NewHost(t)
	src := h.Open(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, pub) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if ready, ok := src.(sources.Readier); ok {
		<-ready.Ready()
	}
	return h
}

// s3Post posts a notification and gives the status and the answer.
func s3Post(t *testing.T, url string, header http.Header, body []byte) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res, string(answer)
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// captured reads a request that was captured on the wire.
func captured(t *testing.T, name string) (http.Header, []byte) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "s3", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	return req.Header, body
}

// Every request that was captured from a real object store, through the real door.
func TestS3Captured(t *testing.T) {
	t.Parallel()
	const odd = "images/up load+ü.json"
	tests := map[string]struct{ kind, key, size, etag string }{
		"minio-001-s3-ObjectCreated-Put":                         {"object.created.put", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"minio-002-s3-ObjectAccessed-Head":                       {"object.accessed.head", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"minio-003-s3-ObjectAccessed-Get":                        {"object.accessed.get", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"minio-004-s3-ObjectCreated-CompleteMultipartUpload":     {"object.created.complete_multipart_upload", "big.bin", "73400320", "4da392d4269d3bd68eebca0b644a8693-5"},
		"minio-005-s3-ObjectAccessed-Head":                       {"object.accessed.head", "big.bin", "73400320", "4da392d4269d3bd68eebca0b644a8693-5"},
		"minio-006-s3-ObjectAccessed-Head":                       {"object.accessed.head", "big.bin", "73400320", "4da392d4269d3bd68eebca0b644a8693-5"},
		"minio-007-s3-ObjectCreated-CompleteMultipartUpload":     {"object.created.complete_multipart_upload", "copy.bin", "73400320", "c4ef9c56614f1925b5109e6c4599a737-1"},
		"minio-008-s3-ObjectAccessed-Head":                       {"object.accessed.head", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"minio-009-s3-ObjectAccessed-Head":                       {"object.accessed.head", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"minio-010-s3-ObjectRemoved-Delete":                      {"object.removed.delete", odd, "", ""},
		"minio-011-s3-ObjectCreated-PutTagging":                  {"object.created.put_tagging", "big.bin", "73400320", "4da392d4269d3bd68eebca0b644a8693-5"},
		"versitygw-001-s3-TestEvent":                             {},
		"versitygw-002-s3-ObjectCreated-Put":                     {"object.created.put", odd, "8", "4588ff3797b78d819d858fa3bdd82b09"},
		"versitygw-003-s3-ObjectCreated-CompleteMultipartUpload": {"object.created.complete_multipart_upload", "big.bin", "", "4da392d4269d3bd68eebca0b644a8693-5"},
		"versitygw-004-s3-ObjectCreated-CompleteMultipartUpload": {"object.created.complete_multipart_upload", "copy.bin", "", "c4ef9c56614f1925b5109e6c4599a737-1"},
		"versitygw-005-s3-ObjectTagging-Put":                     {"object.tagging.put", "big.bin", "", ""},
		"versitygw-006-s3-ObjectRemoved-DeleteObjects":           {"object.removed.delete", odd, "", ""},
		"versitygw-007-s3-ObjectRemoved-DeleteObjects":           {"object.removed.delete", "big.bin", "", ""},
		"versitygw-008-s3-ObjectRemoved-DeleteObjects":           {"object.removed.delete", "copy.bin", "", ""},
	}
	files, err := filepath.Glob("testdata/s3/*.http")
	if err != nil || len(files) != len(tests) {
		t.Fatalf("%d captured requests, %d in the table, %v", len(files), len(tests), err)
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pub := &sourcetest.Publisher{}
			h := s3Running(t, s3Settings(), pub)
			header, body := captured(t, name)
			if strings.HasPrefix(name, "versitygw") { // which can only put a password into its URL
				header.Set("Authorization", "Basic c2x1aWNlOnNla3JldA==")
			}
			for range 2 { // the second time as a repetition
				if res, answer := s3Post(t, h.URL+"/in/uploads", header, body); res.StatusCode != http.StatusAccepted {
					t.Fatalf("answered %d: %s", res.StatusCode, answer)
				}
			}
			events := pub.Stored()
			if want.kind == "" {
				if len(events)+len(h.Rejected()) != 0 {
					t.Errorf("a test message became %d events and %d dead letters", len(events), len(h.Rejected()))
				}
				return
			}
			if len(events) != 2 || len(h.Rejected()) != 0 {
				t.Fatalf("%d events and %v", len(events), h.Rejected())
			}
			e, data := events[0], gjson.ParseBytes(events[0].Data())
			if e.ID() != events[1].ID() {
				t.Error("the repetition has another id")
			}
			if e.Type() != want.kind || e.Source() != "s3/uploads" || e.Subject() != want.key || e.Time().IsZero() {
				t.Errorf("attributes %v", e.Attrs())
			}
			if data.Get("bucket").Str != "uploads" || data.Get("key").Str != want.key || data.Get("size").Raw != want.size || data.Get("etag").Str != want.etag {
				t.Errorf("data %s", e.Data())
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, []byte(gjson.GetBytes(body, "Records.0").Raw)); err != nil {
				t.Fatal(err)
			}
			if raw := data.Get("raw").Raw; raw != compact.String() {
				t.Errorf("the raw record is\n%s\nwant\n%s", raw, compact.String())
			}
		})
	}
}

func TestS3IDsAreUnique(t *testing.T) {
	t.Parallel()
	pub := &sourcetest.Publisher{}
	h := s3Running(t, s3Settings(), pub)
	files, _ := filepath.Glob("testdata/s3/*.http")
	for _, file := range files {
		_, body := captured(t, strings.TrimSuffix(filepath.Base(file), ".http"))
		if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), body); res.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %d %s", file, res.StatusCode, answer)
		}
	}
	seen := map[string]string{}
	for _, e := range pub.Stored() {
		if other, ok := seen[e.ID()]; ok {
			t.Errorf("two uploads have the id %s:\n%s\n%s", e.ID(), other, e.Data())
		}
		seen[e.ID()] = string(e.Data())
	}
	if want := len(files) - 1; len(seen) != want {
		t.Errorf("%d events, want %d", len(seen), want)
	}
}

func s3Record(key string) string {
	return fmt.Sprintf(`{"eventSource":"aws:s3","eventTime":"2026-01-02T03:04:05Z","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":%q,"size":1}}}`, key)
}

func TestS3Door(t *testing.T) {
	t.Parallel()
	pub := &sourcetest.Publisher{}
	h := s3Running(t, s3Settings(), pub)
	url, good := h.URL+"/in/uploads", []byte(`{"Records":[`+s3Record("a")+`]}`)

	for name, test := range map[string]struct {
		header http.Header
		status int
	}{
		"no token":         {http.Header{}, http.StatusUnauthorized},
		"a wrong token":    {bearer("sekreT"), http.StatusUnauthorized},
		"an empty token":   {bearer(""), http.StatusUnauthorized},
		"a wrong password": {http.Header{"Authorization": {"Basic c2x1aWNlOnNla3JlVA=="}}, http.StatusUnauthorized},
		"another scheme":   {http.Header{"Authorization": {"Digest " + s3Token}}, http.StatusUnauthorized},
		"SNS, no topics":   {http.Header{"X-Amz-Sns-Message-Type": {"Notification"}}, http.StatusUnauthorized},
		"compressed":       {http.Header{"Content-Encoding": {"gzip"}, "Authorization": {"Bearer " + s3Token}}, 415},
		"the next token":   {bearer("the next one"), http.StatusAccepted},
		"lower case":       {http.Header{"Authorization": {"bearer " + s3Token}}, 202},
	} {
		res, answer := s3Post(t, url, test.header, good)
		if res.StatusCode != test.status {
			t.Errorf("%s: %d %s, want %d", name, res.StatusCode, answer, test.status)
		}
		if strings.Contains(answer, s3Token) {
			t.Errorf("%s: the answer holds the token", name)
		}
		if test.status == 401 && res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", name)
		}
	}
	if got := h.Observed()[sources.Denied]; got != 6 {
		t.Errorf("%d denied, want 6", got)
	}
	if res, _ := s3Post(t, url, bearer(s3Token), bytes.Repeat([]byte("x"), 5<<20)); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("5 MiB: %d", res.StatusCode)
	}
	res, err := http.Head(url)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %v %v", res, err)
	}
	_ = res.Body.Close()
	if res, err = http.Get(url); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v %v", res, err)
	}
	_ = res.Body.Close()
}

// A notification with bad records: the good ones are events and the others dead
// letters with what came, under the same id each time.
func TestS3Poison(t *testing.T) {
	t.Parallel()
	pub := &sourcetest.Publisher{}
	h := s3Running(t, s3Settings(), pub)
	const poison = `{"eventName" : "ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"%zz"}}}`
	body := []byte(`{"Records":[` + s3Record("a") + `,` + poison + `,` + s3Record("b") + `]}`)
	for range 2 {
		if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), body); res.StatusCode != http.StatusAccepted || answer != `{"accepted":2,"rejected":1}` {
			t.Fatalf("%d %s", res.StatusCode, answer)
		}
	}
	rejected := h.Rejected()
	if len(rejected) != 2 || string(rejected[0].Data) != poison || rejected[0].ID == "" || rejected[0].ID != rejected[1].ID ||
		rejected[0].ContentType != "application/json" || !strings.Contains(rejected[0].Reason, "encoded as in a form") {
		t.Fatalf("rejected %+v", rejected)
	}
	if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), []byte("\x00 no JSON")); res.StatusCode != http.StatusAccepted || answer != `{"accepted":0,"rejected":1}` {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	h.Fail(bus.ErrFull)
	res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), []byte("nor this"))
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a dead letter that is not durable is acknowledged: %d %s", res.StatusCode, answer)
	}
}

// As long as not all of it is durable the sender has to come again.
func TestS3NotTaken(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{bus.ErrFull, bus.ErrOverloaded, bus.ErrUnavailable, bus.ErrClosed, errors.New("odd")} {
		pub := &sourcetest.Publisher{Before: func(context.Context) error { return cause }}
		h := s3Running(t, s3Settings(), pub)
		res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), []byte(`{"Records":[`+s3Record("a")+`]}`))
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("%v: %d %v %s", cause, res.StatusCode, res.Header, answer)
		}
	}
}

// halfway stores the first event and says of the second what a test wants.
type halfway struct{ err error }

func (p halfway) Publish(_ context.Context, events ...bus.Event) ([]bus.Result, error) {
	results := make([]bus.Result, len(events))
	for i := range results[1:] {
		results[i+1].Err = p.err
	}
	return results, nil
}

func TestS3Halfway(t *testing.T) {
	t.Parallel()
	body := []byte(`{"Records":[` + s3Record("a") + `,` + s3Record("b") + `]}`)
	h := s3Running(t, s3Settings(), halfway{bus.ErrOverloaded})
	if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), body); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("half of it is stored: %d %s", res.StatusCode, answer)
	}
	h = s3Running(t, s3Settings(), halfway{bus.ErrTooLarge})
	if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), body); res.StatusCode != http.StatusAccepted || len(h.Rejected()) != 1 {
		t.Errorf("one that is too large: %d %s, %d dead letters", res.StatusCode, answer, len(h.Rejected()))
	}
}

// A notification whose only record is larger than the store accepts is a dead letter:
// the sender would send it for ever.
func TestS3TooLargeAlone(t *testing.T) {
	t.Parallel()
	h := s3Running(t, s3Settings(), nowhere{})
	body := []byte(`{"Records":[` + s3Record("a") + `]}`)
	if res, answer := s3Post(t, h.URL+"/in/uploads", bearer(s3Token), body); res.StatusCode != http.StatusAccepted || len(h.Rejected()) != 1 {
		t.Errorf("%d %s, %d dead letters", res.StatusCode, answer, len(h.Rejected()))
	}
}

func TestS3Flavor(t *testing.T) {
	t.Parallel()
	s := s3Settings()
	s.Flavor = "ceph"
	pub := &sourcetest.Publisher{}
	h := s3Running(t, s, pub)
	s3Post(t, h.URL+"/in/uploads", bearer(s3Token), []byte(`{"Records":[`+s3Record("a+b%")+`]}`))
	if events := pub.Stored(); len(events) != 1 || events[0].Subject() != "a+b%" {
		t.Errorf("the flavor is not heeded: %v", events)
	}
}

func TestS3Suite(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		h := sourcetest.NewHost(t)
		src := h.Open(t, s3Settings())
		post := func(ctx context.Context, body string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+"/in/uploads", strings.NewReader(body))
			if err != nil {
				return err
			}
			req.Header = bearer(s3Token)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode/100 != 2 {
				return fmt.Errorf("answered %s", res.Status)
			}
			return nil
		}
		return &sourcetest.Subject{
			Source: byKey{src},
			Send: func(ctx context.Context, e bus.Event) error {
				return post(ctx, `{"Records":[`+s3Record(e.ID())+`]}`)
			},
			Poison: func(ctx context.Context) {
				before := len(h.Rejected())
				if err := post(ctx, `{"Records":[{}]}`); err != nil || len(h.Rejected()) != before+1 {
					t.Errorf("poison: %v, %d dead letters", err, len(h.Rejected())-before)
				}
			},
		}
	})
}

func TestS3Faults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*sources.S3)
		want   string
	}{
		"nothing":         {func(s *sources.S3) { *s = *sources.NewS3() }, ": needs one of path"},
		"two ways":        {func(s *sources.S3) { s.Serve = &sources.S3Serve{} }, ": needs one of path"},
		"a relative path": {func(s *sources.S3) { s.Path = "in" }, "path: is not a clean absolute path"},
		"a flavor":        {func(s *sources.S3) { s.Flavor = "vanilla" }, `flavor: "vanilla" is none: write one of auto, aws`},
		"a topic":         {func(s *sources.S3) { s.SNS.Topics = []string{"uploads"} }, "sns.topics[0]: is not the ARN of a topic"},
		"a host":          {func(s *sources.S3) { s.SNS.Hosts = []string{"https://x/"} }, "sns.hosts[0]: is not a host"},
		"hosts only":      {func(s *sources.S3) { s.SNS.Hosts = []string{"x"} }, "sns.topics: is missing"},
		"auth of no door": {func(s *sources.S3) { s.Path, s.Poll = "", &sources.S3Poll{} }, "auth: is only for path"},
	} {
		s := s3Settings()
		test.change(s)
		var all []string
		for _, f := range s.Validate() {
			all = append(all, f.Key+": "+f.Msg)
		}
		if !strings.Contains(strings.Join(all, "\n"), test.want) {
			t.Errorf("%s: %q, want %q", name, all, test.want)
		}
	}
	if faults := s3Settings().Validate(); len(faults) != 0 {
		t.Errorf("good settings: %v", faults)
	}
}
