package app_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/cmd/internal/cli"
)

// The well-known serverless patterns of config/examples, each with functions that
// do what such functions do, and that fail.

// sent publishes an event to a path, which has to take it.
func sent(t *testing.T, a *app.App, path, id, eventType, data string) {
	t.Helper()
	ask(t, a, "POST", path, "application/cloudevents+json",
		fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/test","type":%q,"data":%s}`, id, eventType, data), http.StatusAccepted)
}

// at are the requests to a sink so far.
func at(f *apptest.Function, sink string) (all []apptest.Request) {
	for _, r := range f.Requests() {
		if r.Header.Get("Sluice-Sink") == sink {
			all = append(all, r)
		}
	}
	return all
}

// good are those of them that were answered with a 2xx.
func good(f *apptest.Function, sink string) []apptest.Request {
	return slices.DeleteFunc(at(f, sink), func(r apptest.Request) bool { return r.Status/100 != 2 })
}

// settled waits until everything has ended, and checks that it adds up.
func settled(t *testing.T, a *app.App) {
	t.Helper()
	until(t, "everything has ended", func() bool { return a.Bus().Balance().Open() == 0 })
	if b := a.Bus().Balance(); b.Lost() != 0 {
		t.Errorf("it does not add up: %+v", b)
	}
}

// reports are the reports of failures that a sink got, as "sink event-id reason".
func reports(t *testing.T, f *apptest.Function, sink string) (all []string) {
	t.Helper()
	for _, r := range good(f, sink) {
		all = append(all, failure(t, r.Body))
	}
	return all
}

func failure(t *testing.T, data []byte) string {
	t.Helper()
	var report struct {
		Sink, Reason string
		Event        struct{ ID string }
	}
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return fmt.Sprintf("%s %s %s", report.Sink, report.Event.ID, report.Reason)
}

func decode(t *testing.T, from io.Reader, into any) {
	t.Helper()
	if err := json.NewDecoder(from).Decode(into); err != nil {
		t.Error(err)
	}
}

// TestExampleFanOut lets one of three functions fail: the other two have everything
// while it is down, and it has everything once it is back.
func TestExampleFanOut(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/search" && !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	a := startExample(t, "fan-out.yaml", f.URL)
	publish(t, a) // a picture, an empty one, and one that goes
	until(t, "the other two have theirs", func() bool { return len(good(f, "thumbs")) == 1 && len(good(f, "log")) == 2 })
	if n := len(good(f, "search")); n != 0 {
		t.Errorf("%d requests succeeded at a function that is down", n)
	}
	up.Store(true)
	settled(t, a)
	if n := len(good(f, "search")); n != 2 || len(at(f, "thumbs")) != 1 || len(at(f, "log")) != 2 {
		t.Errorf("search has %d events, thumbs %d requests, log %d", n, len(at(f, "thumbs")), len(at(f, "log")))
	}
}

// TestExampleS3Results uploads with the SDK of AWS: the function, which fails at
// first, fetches the picture, stores a small one, and a line in the file tells so.
func TestExampleS3Results(t *testing.T) {
	t.Parallel()
	endpoint := freeAddress(t)
	c := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "pictures", SecretAccessKey: token}, nil
		}),
	})
	read := func(bucket, key string) string {
		object, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			t.Error(err)
			return ""
		}
		defer object.Body.Close()
		text, err := io.ReadAll(object.Body)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	write := func(bucket, key, text string) {
		if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Error(err)
		}
	}
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sluice-Attempt") == "1" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		var upload struct{ Bucket, Key string }
		decode(t, r.Body, &upload)
		write("results", upload.Key, read(upload.Bucket, upload.Key)[:5])
	})
	results := t.TempDir() + "/results.ndjson"
	a := startExample(t, "s3-results.yaml", f.URL, "127.0.0.1:8485", endpoint, "path: ./results.ndjson", "path: "+results)
	write("uploads", "holiday/cat 1.jpg", "small and large")
	write("uploads", "notes.txt", "no picture")
	until(t, "a result", func() bool { return len(fileEvents(t, results)) > 0 })
	settled(t, a)
	if got := read("results", "holiday/cat 1.jpg"); got != "small" {
		t.Errorf("the result is %q", got)
	}
	lines := fileEvents(t, results)
	if len(lines) != 1 || lines[0].Source != "s3/results" || !bytes.Contains(lines[0].Data, []byte(`"key":"holiday/cat 1.jpg"`)) {
		t.Errorf("the file has %+v", lines)
	}
	if n := len(at(f, "resize")); n != 2 {
		t.Errorf("%d requests for one picture of which the first attempt fails", n)
	}
}

// TestExampleSchedule runs the nightly report each second: one fails, who is on call
// hears of it, and the next ones run.
func TestExampleSchedule(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/report" && calls.Add(1) == 1 {
			w.Header().Set("Sluice-Retry", "no")
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	a := startExample(t, "schedule.yaml", f.URL, "cron(0 2 * * ? *)", "rate(1 second)", "timezone: Europe/Berlin", "timezone: UTC")
	until(t, "two reports after the one that failed", func() bool { return len(good(f, "report")) >= 2 && len(good(f, "oncall")) >= 1 })
	all := at(f, "report")
	if got, want := reports(t, f, "oncall"), "report "+all[0].ID+" rejected"; !slices.Equal(got, []string{want}) {
		t.Errorf("who is on call hears %q, want %q", got, want)
	}
	for i, r := range all {
		var tick struct{ Schedule, Of string }
		decode(t, bytes.NewReader(r.Body), &tick)
		if tick.Schedule == "" || tick.Of != "yesterday" || r.Header.Get("Ce-Type") != "sluice.cron.tick" || i > 0 && r.ID == all[i-1].ID {
			t.Errorf("tick %d: %s %s", i, r.ID, r.Body)
		}
	}
	if n := len(at(f, "health")); n > 0 {
		t.Errorf("health was asked %d times", n)
	}
	stop(t, a)
}

// TestExampleStream reads a topic into batches. The function reports some events of
// a batch as failed: they alone come again, and one that always fails ends in the
// file. The group's offset is at the end then.
func TestExampleStream(t *testing.T) {
	t.Parallel()
	const users, strays = 250, 10
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	var records []*kgo.Record
	for i := range users + strays {
		text := fmt.Sprintf(`{"user":%d,"page":"/"}`, i)
		if i >= users {
			text = `{"page":"/"}`
		}
		records = append(records, kgo.StringRecord(text))
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s := sessions{seen: map[int]int{}}
	f := apptest.NewFunction(t, s.serve)
	poison := t.TempDir() + "/poison.ndjson"
	a := startExample(t, "stream.yaml", f.URL, "127.0.0.1:9092", cluster.ListenAddrs()[0], "path: ./poison.ndjson", "path: "+poison,
		"{initial: 1s, max: 1m, max_age: 6h}", "{schedule: [10ms, 10ms]}")
	until(t, "the one that fails is in the file", func() bool { return len(fileEvents(t, poison)) > 0 })
	settled(t, a)
	s.mu.Lock()
	defer s.mu.Unlock()
	for user := range users {
		want := 1
		switch {
		case user == 13:
			want = 3
		case user%50 == 7:
			want = 2
		}
		if s.seen[user] != want {
			t.Errorf("user %d came %d times, want %d", user, s.seen[user], want)
		}
	}
	if s.largest < 10 || s.largest > 100 || len(s.seen) != users {
		t.Errorf("%d users, the largest batch has %d events", len(s.seen), s.largest)
	}
	lines := fileEvents(t, poison)
	if len(lines) != 1 || !strings.HasPrefix(failure(t, lines[0].Data), "sessions ") || !bytes.Contains(lines[0].Data, []byte(`"user":13`)) {
		t.Errorf("the file has %+v", lines)
	}
	t.Logf("%d records in %d requests, the largest with %d", users, len(f.Requests()), s.largest)
	until(t, "the offset of the group is at the end", func() bool { return committed(t, client) == users+strays })
}

// sessions is a function that takes batches: every fiftieth user fails once, and the
// user 13 always.
type sessions struct {
	mu      sync.Mutex
	seen    map[int]int
	largest int
}

func (s *sessions) serve(w http.ResponseWriter, r *http.Request) {
	var batch []struct {
		ID   string
		Data struct{ User int }
	}
	var answer struct {
		Failed []map[string]string `json:"batchItemFailures"`
	}
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.largest = max(s.largest, len(batch))
	for _, e := range batch {
		s.seen[e.Data.User]++
		if e.Data.User == 13 || e.Data.User%50 == 7 && s.seen[e.Data.User] == 1 {
			answer.Failed = append(answer.Failed, map[string]string{"itemIdentifier": e.ID})
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// committed is where the group of the example stands in its one partition.
func committed(t *testing.T, client *kgo.Client) int64 {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = "sluice"
	req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "clicks", Partitions: []int32{0}}}
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("%v, %+v", err, resp)
	}
	return resp.Topics[0].Partitions[0].Offset
}

// TestExampleWebhooks sends what GitHub sends: signed, signed by somebody else, and
// once more.
func TestExampleWebhooks(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	a := startExample(t, "webhooks.yaml", f.URL)
	push := func(secret, delivery, ref string) int {
		body := fmt.Sprintf(`{"ref":%q,"repository":{"full_name":"octo/hello"}}`, ref)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL()+"/in/github", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"Content-Type": "application/json", "X-Github-Event": "push", "X-Github-Delivery": delivery,
			"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
		} {
			req.Header.Set(name, text)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, try := range []struct {
		secret, delivery, ref string
		status                int
	}{
		{"somebody else's", "1", "refs/heads/main", http.StatusUnauthorized},
		{token, "2", "refs/heads/main", http.StatusAccepted},
		{token, "3", "refs/heads/next", http.StatusAccepted},
	} {
		if got := push(try.secret, try.delivery, try.ref); got != try.status {
			t.Errorf("push %s is answered with %d, want %d", try.delivery, got, try.status)
		}
	}
	if got := push(token, "2", "refs/heads/main"); got/100 != 2 {
		t.Errorf("a push that is sent again is answered with %d", got)
	}
	until(t, "the push", func() bool { return len(f.Requests()) > 0 })
	settled(t, a)
	all := f.Requests()
	if len(all) != 1 || all[0].ID != "2" || all[0].Header.Get("Ce-Subject") != "refs/heads/main" || !bytes.Contains(all[0].Body, []byte("octo/hello")) {
		t.Errorf("builds got %+v", all)
	}
}

// TestExamplePipeline sends pictures through three functions by their replies. One
// cannot be resized: it is a dead letter, which is reported, and goes the whole way
// once the function is mended and the letter redriven.
func TestExamplePipeline(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	reply := func(w http.ResponseWriter, eventType, data string) {
		w.Header().Set("Ce-Type", eventType)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, data)
	}
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		var picture struct{ Key string }
		switch r.URL.Path {
		case "/resize":
			decode(t, r.Body, &picture)
			if picture.Key == "broken.jpg" && !mended.Load() {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			reply(w, "picture.resized", fmt.Sprintf(`{"key":%q,"width":320}`, picture.Key))
		case "/store":
			decode(t, r.Body, &picture)
			reply(w, "picture.stored", fmt.Sprintf(`{"url":"https://pictures.example.com/320/%s"}`, picture.Key))
		case "/notify":
			reply(w, "nobody.wants.this", "{}")
		}
	})
	a := startExample(t, "pipeline.yaml", f.URL)
	sent(t, a, "/", "1", "object.created.put", `{"key":"cat.jpg"}`)
	sent(t, a, "/", "2", "object.created.put", `{"key":"broken.jpg"}`)
	until(t, "one at the end, one reported", func() bool { return len(good(f, "notify")) == 1 && len(good(f, "apology")) == 1 })
	settled(t, a)
	if got := reports(t, f, "apology"); !slices.Equal(got, []string{"resize 2 rejected"}) {
		t.Errorf("reported: %q", got)
	}
	mended.Store(true)
	ask(t, a, "POST", "/api/v1/dead-letters/redrive", "application/json", `{"sink": "resize"}`, http.StatusAccepted)
	until(t, "both at the end", func() bool { return len(good(f, "notify")) == 2 })
	settled(t, a)
	ends := map[string]string{} // by the event that began it
	for _, r := range at(f, "notify") {
		if hops := r.Header.Get("Ce-Sluicehops"); hops != "2" {
			t.Errorf("it came through %q sinks", hops)
		}
		ends[r.Header.Get("Ce-Correlationid")] = string(r.Body)
	}
	want := map[string]string{"1": `{"url":"https://pictures.example.com/320/cat.jpg"}`, "2": `{"url":"https://pictures.example.com/320/broken.jpg"}`}
	if !maps.Equal(ends, want) {
		t.Errorf("notify got %v, want %v", ends, want)
	}
	if resized, kept := len(at(f, "resize")), len(at(f, "store")); resized != 3 || kept != 2 {
		t.Errorf("%d requests to resize, %d to store", resized, kept)
	}
}

// TestExampleRequestReply asks for quotes and waits: the function replies at its
// second attempt, or not in time, which loses nothing.
func TestExampleRequestReply(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/quote":
			return
		case r.Header.Get("Sluice-Attempt") == "1" && r.Header.Get("Ce-Id") == "slow":
			<-release
		case r.Header.Get("Sluice-Attempt") == "1":
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Ce-Type", "quote.given")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"total":1250}`)
	})
	a := startExample(t, "request-reply.yaml", f.URL)
	quote := func(id, wait string) (int, http.Header, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL()+"/in/quotes", strings.NewReader(`{"items":["tea"]}`))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"Content-Type": "application/json", "Prefer": "wait=" + wait,
			"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "/shop", "Ce-Type": "quote.asked",
		} {
			req.Header.Set(name, text)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(text)
	}
	status, header, body := quote("soon", "20")
	if status != http.StatusOK || body != `{"total":1250}` || header.Get("Ce-Type") != "quote.given" || header.Get("Ce-Causationid") != "soon" {
		t.Errorf("%d %v %s", status, header, body)
	}
	if status, _, body := quote("slow", "1"); status != http.StatusAccepted {
		t.Errorf("without a reply in time: %d %s", status, body)
	}
	close(release)
	until(t, "both quotes are known to sales", func() bool { return len(good(f, "sales")) == 2 })
	settled(t, a)
	if n := len(good(f, "quote")); n != 2 {
		t.Errorf("%d requests were answered with a quote", n)
	}
}

// TestExampleWorkQueue lets workers fetch with sluice queue receive. One takes the
// same job three times and never says that it is done: that is a dead letter, and the
// next job of the account is let through. A redrive brings it back.
func TestExampleWorkQueue(t *testing.T) {
	t.Parallel()
	a := startExample(t, "work-queue.yaml", "http://"+freeAddress(t), "visibility: 5m", "visibility: 1s")
	sluice := func(args ...string) (int, string) {
		var out, err bytes.Buffer
		code := cli.Main(t.Context(), append([]string{"--server", a.URL(), "--token", ""}, args...), strings.NewReader(""), &out, &err)
		if err.Len() > 0 && code != 4 {
			t.Logf("sluice %s: %s", strings.Join(args, " "), err.String())
		}
		return code, out.String()
	}
	sent(t, a, "/", "a1", "job.convert", `{"account":"A"}`)
	sent(t, a, "/", "a2", "job.convert", `{"account":"A"}`)
	until(t, "the jobs are in the queue", func() bool {
		_, out := sluice("queue", "peek", "jobs")
		return strings.Contains(out, `"a1"`)
	})
	for i := range 3 {
		code, out := sluice("queue", "receive", "jobs")
		if code != 0 || !strings.Contains(out, `"id":"a1"`) || !strings.Contains(out, fmt.Sprintf(`"receives":%d`, i+1)) {
			t.Fatalf("receive %d: exit code %d: %s", i+1, code, out)
		}
	}
	if code, out := sluice("queue", "receive", "jobs", "--ack"); code != 0 || !strings.Contains(out, `"id":"a2"`) {
		t.Fatalf("the job behind it: exit code %d: %s", code, out)
	}
	if code, out := sluice("dlq", "ls"); code != 0 || !strings.Contains(out, "attempts_exhausted") || !strings.Contains(out, "jobs") {
		t.Errorf("sluice dlq ls: exit code %d: %s", code, out)
	}
	if code, out := sluice("dlq", "redrive", "--sink", "jobs"); code != 0 {
		t.Fatalf("sluice dlq redrive: exit code %d: %s", code, out)
	}
	if code, out := sluice("queue", "receive", "jobs", "--ack"); code != 0 || !strings.Contains(out, `"id":"a1"`) {
		t.Errorf("after the redrive: exit code %d: %s", code, out)
	}
	if code, out := sluice("queue", "receive", "jobs", "--wait", "100ms"); code != 4 {
		t.Errorf("an empty queue: exit code %d: %s", code, out)
	}
	settled(t, a)
}

// TestExampleLongJob has a function that takes leases: one job calls back, one is
// never heard of again and comes a second time, and one says that it failed.
func TestExampleLongJob(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/encode":
		case r.Header.Get("Ce-Id") == "silent" && r.Header.Get("Sluice-Attempt") == "1":
			w.Header().Set("Sluice-Lease", "1s")
			w.WriteHeader(http.StatusAccepted)
		default:
			w.Header().Set("Sluice-Lease", "10m")
			w.WriteHeader(http.StatusAccepted)
		}
	})
	a := startExample(t, "long-job.yaml", f.URL)
	jobs := []string{"good", "silent", "bad"}
	for _, id := range jobs {
		sent(t, a, "/", id, "film.uploaded", fmt.Sprintf(`{"film":%q}`, id))
	}
	last := map[string]http.Header{}
	until(t, "all wait, one for the second time", func() bool {
		for _, r := range at(f, "encode") {
			last[r.ID] = r.Header
		}
		return len(last) == len(jobs) && last["silent"].Get("Sluice-Attempt") == "2" && a.Bus().Balance().Retries == int64(len(jobs))
	})
	call := func(id, verb, body string, headers ...string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, last[id].Get("Sluice-Callback")+"/"+verb, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Sluice-Lease-Token", last[id].Get("Sluice-Lease-Token"))
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s %v\n%s", verb, id, resp.Status, err, text)
		}
	}
	call("good", "extend", `{"for": "1h"}`)
	for _, id := range []string{"good", "silent"} {
		call(id, "complete", fmt.Sprintf(`{"film":%q,"minutes":93}`, id), "Ce-Type", "film.encoded", "Content-Type", "application/json")
	}
	call("bad", "fail", `{"error": "no such codec", "retry": false}`)
	until(t, "two films, and a report", func() bool { return len(good(f, "publish")) == 2 && len(good(f, "oncall")) == 1 })
	settled(t, a)
	if got := reports(t, f, "oncall"); !slices.Equal(got, []string{"encode bad rejected"}) {
		t.Errorf("who is on call hears %q", got)
	}
	if n := len(at(f, "encode")); n != len(jobs)+1 {
		t.Errorf("%d requests for %d jobs", n, len(jobs))
	}
}
