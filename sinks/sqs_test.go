package sinks_test

import (
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// sqsFar is a queue that shows what it is sent, and has the faults a test asks for.
type sqsFar struct {
	*httptest.Server
	mu       sync.Mutex
	got      []sqsSent
	requests []int // how many messages each had
	most     int   // bytes in a request; 0 for any number
	// fault may answer a request; entryFault an entry.
	fault      func() (status int, code string)
	entryFault func(body string) (code string, sender bool)
	show       func(sqsSent)
	hang       chan struct{} // closed: requests stay without an answer
}

type sqsSent struct {
	ID                     string `json:"Id"`
	MessageBody            string
	MessageGroupID         string `json:"MessageGroupId"`
	MessageDeduplicationID string `json:"MessageDeduplicationId"`
	MessageAttributes      map[string]struct{ StringValue string }
}

func (m sqsSent) attr(name string) string { return m.MessageAttributes[name].StringValue }

func newSQSFar(t *testing.T) *sqsFar {
	t.Helper()
	f := &sqsFar{hang: make(chan struct{})}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// ServeHTTP is http.Handler.
func (f *sqsFar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ Entries []sqsSent }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, len(in.Entries))
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.sqs#" + code, "message": "said the far side"})
	}
	size := 0
	for _, m := range in.Entries {
		size += len(m.MessageBody)
	}
	if f.most > 0 && size > f.most {
		refuse(400, "BatchRequestTooLong")
		return
	}
	if f.fault != nil {
		if status, code := f.fault(); status != 0 {
			refuse(status, code)
			return
		}
	}
	good, bad := []any{}, []any{}
	for i, m := range in.Entries {
		if f.entryFault != nil {
			if code, sender := f.entryFault(m.MessageBody); code != "" {
				bad = append(bad, map[string]any{"Id": m.ID, "Code": code, "SenderFault": sender, "Message": "said the far side"})
				continue
			}
		}
		f.got = append(f.got, m)
		if f.show != nil {
			f.show(m)
		}
		sum := md5.Sum([]byte(m.MessageBody))
		good = append(good, map[string]string{"Id": m.ID, "MessageId": fmt.Sprint(i), "MD5OfMessageBody": hex.EncodeToString(sum[:])})
	}
	select {
	case <-f.hang:
		f.mu.Unlock()
		<-r.Context().Done()
		f.mu.Lock()
	default:
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Successful": good, "Failed": bad})
}

// take gives what came since, and forgets it.
func (f *sqsFar) take() (got []sqsSent, requests []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got, requests = f.got, f.requests
	f.got, f.requests = nil, nil
	return got, requests
}

func sqsSettings(t testing.TB, queue string) *sinks.SQS {
	t.Helper()
	u, err := value.ParseURL(queue)
	if err != nil {
		t.Fatal(err)
	}
	s := sinks.NewSQS()
	s.QueueURL, s.Credentials.AccessKey, s.Credentials.SecretKey = u, value.NewText("key"), value.NewSecret(password)
	return s
}

func TestSQSSinkContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
		far := newSQSFar(t)
		got := make(chan sinktest.Got, 2048)
		far.show = func(m sqsSent) {
			e, err := bus.ParseJSON([]byte(m.MessageBody))
			if err != nil {
				t.Errorf("the body is no CloudEvent: %v", err)
			}
			attempt, _ := strconv.Atoi(m.attr("sluice-attempt"))
			got <- sinktest.Got{Event: e, ID: m.attr("sluice-delivery-id"), Rule: m.attr("sluice-rule"), Attempt: attempt}
		}
		s := sqsSettings(t, far.URL+"/000000000000/q")
		s.MaxBytes = 4 << 20
		return &sinktest.Subject{
			Sink: openIn(t, s, env), Received: got, Hang: sync.OnceFunc(func() { close(far.hang) }),
			Carries: true, KeepsKinds: true, Secrets: []string{password}, Faulty: sqsFaulty(env),
			Elsewhere: func(t *testing.T, addr string, tls *tls.Config) sinks.Sink {
				return openIn(t, sqsSettings(t, schemeOf(tls)+"://"+addr+"/1/q"), env)
			},
		}
	})
}

func sqsFaulty(env sinks.Env) func(*testing.T, sinktest.Fault) sinks.Sink {
	return func(t *testing.T, f sinktest.Fault) sinks.Sink {
		if f == sinktest.FaultOutage {
			return openIn(t, sqsFault(t, 503, "ServiceUnavailable"), env)
		}
		return openIn(t, sqsFault(t, 400, map[sinktest.Fault]string{
			sinktest.FaultCredentials: "InvalidClientTokenId", sinktest.FaultDenied: "AccessDenied",
			sinktest.FaultUnknown: "QueueDoesNotExist", sinktest.FaultLarge: "BatchRequestTooLong",
		}[f]), env)
	}
}

// What becomes of an event: body, group, attributes.
func TestSQSSinkMessages(t *testing.T) {
	t.Parallel()
	far := newSQSFar(t)
	key := bus.Attr{Name: "partitionkey", Value: "k"}
	for name, c := range map[string]struct {
		queue  string
		change func(*sinks.SQS)
		event  bus.Event
		then   func(*sinks.Delivery)
		want   string // or ! and the error
	}{
		"structured":     {"q", nil, kafkaEvent(t, `{}`, key), nil, `{"specversion":"1.0","id":"i","source":"/s","type":"made","partitionkey":"k","data":{}} group= dedup= application/cloudevents+json sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"noncharacter":   {"q", nil, kafkaEvent(t, "\"\uffff\""), nil, `{"specversion":"1.0","id":"i","source":"/s","type":"made","data":"\uffff"} group= dedup= application/cloudevents+json sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"data":           {"q", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, `{}`, key), nil, `{} group= dedup= application/json ce_id ce_partitionkey ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"data, ten only": {"q", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, `{}`, key, bus.Attr{Name: "subject", Value: "s"}, bus.Attr{Name: "time", Value: "2026-01-02T03:04:05Z"}, bus.Attr{Name: "a", Value: "x"}, bus.Attr{Name: "b", Value: "x"}), nil, `{} group= dedup= application/json ce_a ce_b ce_id ce_source ce_specversion ce_subject ce_time ce_type sluice-delivery-id`},
		"data, empty":    {"q", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, ""), nil, "!no empty message"},
		"data, binary":   {"q", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, "\xff", bus.Attr{Name: "datacontenttype", Value: "image/png"}), nil, "!is no UTF-8 text"},
		"data, control":  {"q", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, "\x01", bus.Attr{Name: "datacontenttype", Value: "text/plain"}), nil, "!has control characters"},
		"transformed": {"q", nil, kafkaEvent(t, `{}`, bus.Attr{Name: "dataschema", Value: "http://x/y"}), func(d *sinks.Delivery) {
			d.Payload = &sinks.Payload{Body: []byte("new"), ContentType: "text/plain", Header: map[string]string{"Team": "blue", "a.b": "x"}}
		}, `new group= dedup= text/plain Team ce_id ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"fifo":             {"q.fifo", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, `1`, key), nil, `1 group=k dedup=d application/json ce_id ce_partitionkey ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"fifo, no key":     {"q.fifo", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, `1`), nil, `1 group=/s dedup=d application/json ce_id ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"fifo, in data":    {"q.fifo", func(s *sinks.SQS) { s.Mode, s.Group = "data", "data.a b" }, kafkaEvent(t, `{"a b":7}`), nil, `{"a b":7} group=7 dedup=d application/json ce_id ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"fifo, odd key":    {"q.fifo", func(s *sinks.SQS) { s.Mode = "data" }, kafkaEvent(t, `1`, bus.Attr{Name: "partitionkey", Value: "é"}), nil, `1 group=4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c dedup=d application/json ce_id ce_partitionkey ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"group, not fifo":  {"q", func(s *sinks.SQS) { s.Mode, s.Group = "data", "type" }, kafkaEvent(t, `1`), nil, `1 group=made dedup= application/json ce_id ce_source ce_specversion ce_type sluice-attempt sluice-delivery-id sluice-rule sluice-sink`},
		"too large for us": {"q", func(s *sinks.SQS) { s.MaxBytes = 1 << 10 }, kafkaEvent(t, `"`+strings.Repeat("x", 2000)+`"`), nil, "!more than the 1024 of max_bytes"},
	} {
		s := sqsSettings(t, far.URL+"/000000000000/"+c.queue)
		if c.change != nil {
			c.change(s)
		}
		d := sinks.Delivery{Event: c.event, ID: "d", Rule: "r", Sink: "s", Attempt: 2}
		if c.then != nil {
			c.then(&d)
		}
		err := open(t, s).Deliver(t.Context(), d)
		if want, failed := strings.CutPrefix(c.want, "!"); failed {
			var e *sinks.Error
			if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want a permanent error with %q", name, err, want)
			}
			continue
		}
		got, _ := far.take()
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %d messages", name, err, len(got))
			continue
		}
		var names []string
		for name := range got[0].MessageAttributes {
			if name != "content-type" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		text := fmt.Sprintf("%s group=%s dedup=%s %s %s", got[0].MessageBody, got[0].MessageGroupID, got[0].MessageDeduplicationID, strings.SplitN(got[0].attr("content-type"), ";", 2)[0], strings.Join(names, " "))
		if text != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, text, c.want)
		}
	}
}

// Each kind of failure has its own words and its own verdict.
func TestSQSSinkVerdicts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status    int
		code      string
		entry     bool
		sender    bool
		verdict   int
		permanent bool
		want      string
	}{
		"wrong key":       {status: 403, code: "InvalidClientTokenId", verdict: 401, want: "check access_key"},
		"wrong secret":    {status: 403, code: "SignatureDoesNotMatch", verdict: 401, want: "check secret_key"},
		"denied":          {status: 403, code: "AccessDenied", verdict: 403, want: "give the user or role the permission"},
		"no queue":        {status: 400, code: "QueueDoesNotExist", verdict: 404, want: "there is no such queue"},
		"throttled":       {status: 400, code: "RequestThrottled", verdict: 429, want: "RequestThrottled"},
		"down":            {status: 503, code: "ServiceUnavailable", want: "ServiceUnavailable"},
		"broken":          {status: 500, code: "Odd", want: "Odd"},
		"too large":       {status: 400, code: "BatchRequestTooLong", verdict: 413, permanent: true, want: "BatchRequestTooLong"},
		"invalid":         {status: 400, code: "InvalidMessageContents", verdict: 400, permanent: true, want: "InvalidMessageContents"},
		"entry invalid":   {entry: true, code: "InvalidMessageContents", sender: true, verdict: 400, permanent: true, want: "said the far side"},
		"entry internal":  {entry: true, code: "InternalError", want: "InternalError"},
		"entry odd":       {entry: true, code: "Odd", want: "Odd"},
		"entry throttled": {entry: true, code: "RequestThrottled", sender: true, verdict: 429, want: "RequestThrottled"},
		"entry denied":    {entry: true, code: "AccessDeniedException", sender: true, verdict: 403, want: "permission"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			far := newSQSFar(t)
			if c.entry {
				far.entryFault = func(string) (string, bool) { return c.code, c.sender }
			} else {
				far.fault = func() (int, string) { return c.status, c.code }
			}
			err := open(t, sqsSettings(t, far.URL+"/1/q")).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
			var e *sinks.Error
			if !errors.As(err, &e) || e.Status != c.verdict || e.Permanent != c.permanent || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (%+v), want status %d, permanent %v, %q", err, e, c.verdict, c.permanent, c.want)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		err := open(t, sqsSettings(t, "http://127.0.0.1:1/1/q")).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 0 || e.Permanent || !strings.Contains(err.Error(), "the server does not answer, check endpoint") {
			t.Errorf("%v (%+v)", err, e)
		}
	})
}

func sqsBatch(t *testing.T, n int, size int) (ds []sinks.Delivery) {
	t.Helper()
	for i := range n {
		data := fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", size))
		ds = append(ds, sinks.Delivery{Event: kafkaEvent(t, data), ID: fmt.Sprint(i), Attempt: 1})
	}
	return ds
}

// A batch is split as the API wants it, and each message has its own fate.
func TestSQSSinkBatch(t *testing.T) {
	t.Parallel()
	far := newSQSFar(t)
	s := sqsSettings(t, far.URL+"/1/q")
	s.MaxBytes = 10 << 10
	sink := open(t, s).(sinks.BatchSink)
	deliver := func(ds []sinks.Delivery) (failed []error) {
		t.Helper()
		failed, err := sink.DeliverBatch(t.Context(), ds)
		if err != nil {
			t.Fatal(err)
		}
		return failed
	}
	deliver(sqsBatch(t, 25, 10))
	if got, requests := far.take(); len(got) != 25 || !slices.Equal(requests, []int{10, 10, 5}) {
		t.Errorf("25 messages went out as %v", requests)
	}
	deliver(sqsBatch(t, 5, 4<<10))
	if got, requests := far.take(); len(got) != 5 || !slices.Equal(requests, []int{2, 2, 1}) {
		t.Errorf("5 messages of 4 KiB in requests of 10 KiB went out as %v", requests)
	}
	far.most = 2 << 10
	deliver(sqsBatch(t, 6, 500))
	if got, _ := far.take(); len(got) != 6 {
		t.Errorf("the far side, which takes 2 KiB, got %d of 6 messages", len(got))
	}
	large := sqsBatch(t, 3, 500)
	large[1] = sqsBatch(t, 1, 5<<10)[0]
	if failed := deliver(large); failed[0] != nil || failed[1] == nil || failed[2] != nil {
		t.Errorf("one that is too large for the far side: %v", failed)
	}
	far.most = 0
	far.take()
	far.entryFault = func(body string) (string, bool) {
		if strings.Contains(body, `"3`) {
			return "InternalError", false
		}
		return "", false
	}
	for i, err := range deliver(sqsBatch(t, 12, 10)) {
		if (err != nil) != (i == 3) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	far.fault = func() (int, string) { return 503, "ServiceUnavailable" }
	if failed, err := sink.DeliverBatch(t.Context(), sqsBatch(t, 2, 1)); failed != nil || err == nil {
		t.Errorf("of a far side that is down: %v, %v", failed, err)
	}
	close(far.hang)
	far.fault = nil
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if failed, err := sink.DeliverBatch(ctx, sqsBatch(t, 2, 1)); failed != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of a far side that does not answer: %v, %v", failed, err)
	}
}

// In a FIFO queue a message that failed holds back those of its group, and no others.
func TestSQSSinkHoldsGroup(t *testing.T) {
	t.Parallel()
	far := newSQSFar(t)
	s := sqsSettings(t, far.URL+"/1/q.fifo")
	s.Group = "partitionkey"
	sink := open(t, s).(sinks.BatchSink)
	far.entryFault = func(body string) (string, bool) {
		if strings.Contains(body, `"id":"3"`) {
			return "InternalError", false
		}
		return "", false
	}
	var ds []sinks.Delivery
	for i := range 30 {
		e, err := bus.NewEvent([]bus.Attr{
			{Name: "id", Value: strconv.Itoa(i)}, {Name: "source", Value: "/s"}, {Name: "type", Value: "made"},
			{Name: "partitionkey", Value: fmt.Sprint("k", i%3)},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, sinks.Delivery{Event: e, ID: e.ID(), Attempt: 1})
	}
	failed, err := sink.DeliverBatch(t.Context(), ds)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range failed {
		// What is in the request with it, the server has taken or not by itself.
		if want := i == 3 || i >= 10 && i%3 == 0; (err != nil) != want {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got, requests := far.take(); len(got) != 23 || !slices.Equal(requests, []int{10, 7, 7}) {
		t.Errorf("%d messages were taken, in requests of %v", len(got), requests)
	}
}

// In a FIFO queue nothing is sent after a request that failed.
func TestSQSSinkKeepsOrder(t *testing.T) {
	t.Parallel()
	far := newSQSFar(t)
	sink := open(t, sqsSettings(t, far.URL+"/1/q.fifo")).(sinks.BatchSink)
	n := 0
	far.fault = func() (int, string) {
		if n++; n == 2 {
			return 503, "ServiceUnavailable"
		}
		return 0, ""
	}
	failed, err := sink.DeliverBatch(t.Context(), sqsBatch(t, 30, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range failed {
		if (err != nil) != (i >= 10) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if _, requests := far.take(); len(requests) != 2 {
		t.Errorf("%d requests, want 2", len(requests))
	}
}
