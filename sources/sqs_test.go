package sources_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

func TestSQSContract(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		f := newSQSFake(t)
		s := f.settings(t)
		// What the queue hands out at the moment when the source stops comes again then.
		s.Visibility = value.Duration(2 * time.Second)
		gone := func(ctx context.Context, m *sqsFakeMessage) error {
			select {
			case <-m.gone:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return &sourcetest.Subject{
			Source: sourcetest.NewHost(t).Open(t, s),
			Send: func(ctx context.Context, e bus.Event) error {
				return gone(ctx, f.send(string(e.AppendJSON(nil)), nil))
			},
			Poison: func(ctx context.Context) { _ = gone(ctx, f.send(`{"specversion":"1.0","id":""}`, nil)) },
		}
	})
}

// runSQS runs a source until the test ends or stop is called, which gives what Run
// returned.
func runSQS(t *testing.T, src sources.Source, pub bus.Publisher) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, pub) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("Run did not return")
		}
	}
}

func says(text string) func() string { return func() string { return text } }

// What becomes of a message.
func TestSQSMessages(t *testing.T) {
	t.Parallel()
	sns := `{"Type":"Notification","MessageId":"n-1","TopicArn":"arn:aws:sns:eu-central-1:1:t","Subject":"hello","Message":"{\"a\":1}","Timestamp":"2026-02-03T04:05:06.789Z","MessageAttributes":{"team":{"Type":"String","Value":"blue"}}}`
	const plain = "id=m-1 source=sqs://HOST/000000000000/q type=sqs.message "
	for name, c := range map[string]struct {
		body   string
		attrs  map[string]string
		system map[string]string
		change func(*sources.SQS)
		want   string // the attributes and the data, or ! and what the dead letter says
	}{
		"json": {body: `{"a": 1}`, want: plain + `datacontenttype=application/json time=2026-01-02T03:04:05Z {"a": 1}`},
		"text": {body: `hi`, want: plain + `datacontenttype=text/plain; charset=utf-8 time=2026-01-02T03:04:05Z hi`},
		"mapped": {body: `hi`, change: func(s *sources.SQS) { s.Source, s.Type, s.ContentType = "/shop", "order", "text/x" },
			want: "id=m-1 source=/shop type=order datacontenttype=text/x time=2026-01-02T03:04:05Z hi"},
		"attributes": {body: `hi`, attrs: map[string]string{"team": "blue", "Not-A-Name": "x", "id": "other", "contenttype": "text/a"},
			want: plain + `datacontenttype=text/a team=blue time=2026-01-02T03:04:05Z hi`},
		"wrong content type": {body: `hi`, attrs: map[string]string{"Content-Type": "application/json"},
			want: plain + `datacontenttype=text/plain; charset=utf-8 time=2026-01-02T03:04:05Z hi`},
		"group": {body: `hi`, system: map[string]string{"MessageGroupId": "g", "SequenceNumber": "18"},
			want: plain + `datacontenttype=text/plain; charset=utf-8 partitionkey=g sequence=18 subject=g time=2026-01-02T03:04:05Z hi`},
		"structured": {body: `{"specversion":"1.0","id":"i","source":"/s","type":"t","data":[1]}`,
			want: `id=i source=/s type=t time=2026-01-02T03:04:05Z [1]`},
		"binary": {body: `hi`, attrs: map[string]string{"ce_specversion": "1.0", "ce_id": "i", "ce_source": "/s", "ce_type": "t", "content-type": "text/plain"},
			want: `id=i source=/s type=t datacontenttype=text/plain time=2026-01-02T03:04:05Z hi`},
		"sns kept":      {body: sns, want: plain + `datacontenttype=application/json time=2026-01-02T03:04:05Z ` + sns},
		"sns unwrapped": {body: sns, change: func(s *sources.SQS) { s.Unwrap = "sns" }, want: `id=n-1 source=arn:aws:sns:eu-central-1:1:t type=sqs.message datacontenttype=application/json subject=hello team=blue time=2026-02-03T04:05:06.789Z {"a":1}`},
		"not from sns":  {body: `{"Type":"x"}`, change: func(s *sources.SQS) { s.Unwrap = "sns" }, want: plain + `datacontenttype=application/json time=2026-01-02T03:04:05Z {"Type":"x"}`},
		"sns, poison": {body: `{"Type":"Notification","MessageId":"n-1","TopicArn":"arn:x","Message":"{\"specversion\":\"1.0\"}"}`,
			change: func(s *sources.SQS) { s.Unwrap = "sns" }, want: `!the message is no valid CloudEvent`},
		"sns, odd time": {body: `{"Type":"Notification","MessageId":"n-1","TopicArn":"arn:x","Message":"m","Timestamp":"0000-01-01T00:00:00+01:00"}`,
			change: func(s *sources.SQS) { s.Unwrap = "sns" }, want: `id=n-1 source=arn:x type=sqs.message datacontenttype=text/plain; charset=utf-8 time=2026-01-02T03:04:05Z m`},
		"poison":      {body: `{"specversion":"1.0","type":"t"}`, want: `!the message is no valid CloudEvent`},
		"no event":    {body: `nonsense`, attrs: map[string]string{"content-type": "application/cloudevents+json"}, want: `!the message is no valid CloudEvent`},
		"a batch":     {body: `[]`, attrs: map[string]string{"content-type": "application/cloudevents-batch+json"}, want: `!a batch is not one event`},
		"binary, bad": {body: `x`, attrs: map[string]string{"ce_specversion": "1.0"}, system: map[string]string{"MessageGroupId": "g"}, want: `!the message is no valid CloudEvent`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newSQSFake(t)
			s := f.settings(t)
			if c.change != nil {
				c.change(s)
			}
			host, pub := sourcetest.NewHost(t), &sourcetest.Publisher{}
			m := f.send(c.body, c.attrs)
			f.set(func() { maps.Copy(m.system, c.system) })
			stop := runSQS(t, host.Open(t, s), pub)
			select {
			case <-m.gone:
			case <-time.After(10 * time.Second):
				t.Fatalf("the message is not deleted; reported: %v", host.Reported())
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if reason, poison := strings.CutPrefix(c.want, "!"); poison {
				r := host.Rejected()
				if len(r) != 1 || !strings.Contains(r[0].Reason, reason) || string(r[0].Data) != c.body || !strings.HasSuffix(r[0].Where, "/q/m-1") || len(pub.Stored()) > 0 {
					t.Errorf("rejected %+v, want %q", r, reason)
				}
				kept := map[string]string{}
				for _, h := range r[0].Headers {
					kept[h.Name] = string(h.Value)
				}
				if !maps.Equal(kept, c.attrs) || string(r[0].Key) != c.system["MessageGroupId"] {
					t.Errorf("the dead letter has the key %q and the attributes %v of %v", r[0].Key, kept, c.attrs)
				}
				return
			}
			stored := pub.Stored()
			if len(stored) != 1 {
				t.Fatalf("%d events; rejected %+v", len(stored), host.Rejected())
			}
			got := ""
			for _, a := range stored[0].Attrs()[1:] { // the first is specversion
				got += a.Name + "=" + a.Value + " "
			}
			got += string(stored[0].Data())
			if want := strings.ReplaceAll(c.want, "HOST", strings.TrimPrefix(f.URL, "http://")); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A panic ends the run with an error, and nothing else with it; the messages come again.
func TestSQSPanic(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	pub := &sourcetest.Publisher{Before: func(context.Context) error { panic("on purpose") }}
	src := sourcetest.NewHost(t).Open(t, f.settings(t))
	m := f.send("x", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := src.Run(ctx, pub); err == nil || !strings.Contains(err.Error(), "it panicked: on purpose") {
		t.Errorf("Run: %v", err)
	}
	select {
	case <-m.gone:
		t.Error("the message is deleted")
	default:
	}
}

// A message stays hidden for as long as the bus does not take it, and is deleted
// afterwards: nobody gets it twice.
func TestSQSExtends(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	s := f.settings(t)
	s.Visibility = value.Duration(2 * time.Second)
	release := make(chan struct{})
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		<-release
		return nil
	}}
	host := sourcetest.NewHost(t)
	stop := runSQS(t, host.Open(t, s), pub)
	m := f.send("x", nil)
	eventually(t, says("it is extended for longer than its visibility"), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return m.extended >= 5
	})
	close(release)
	<-m.gone
	if err := stop(); err != nil {
		t.Error(err)
	}
	if m.received != 1 || len(pub.Stored()) != 1 {
		t.Errorf("it was received %d times and published %d times", m.received, len(pub.Stored()))
	}
}

// What was not published when the source stops is given back at once.
func TestSQSGivesBack(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	s := f.settings(t)
	s.Visibility = value.Duration(time.Hour)
	entered := make(chan struct{}, 1)
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		return bus.ErrFull
	}}
	stop := runSQS(t, sourcetest.NewHost(t).Open(t, s), pub)
	m := f.send("x", nil)
	<-entered
	if err := stop(); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if left := time.Until(m.hidden); left > 0 {
		t.Errorf("others see it only in %s", left)
	}
}

// Each kind of failure has its own words. What a person has to mend ends the run; the
// rest is reported, and passes.
func TestSQSTrouble(t *testing.T) {
	t.Parallel()
	for code, c := range map[string]struct {
		action string
		status int
		fatal  bool
		want   string
	}{
		"InvalidClientTokenId":  {"ReceiveMessage", 403, true, "check access_key"},
		"SignatureDoesNotMatch": {"ReceiveMessage", 403, true, "check secret_key"},
		"ExpiredToken":          {"ReceiveMessage", 403, true, "renew session_token"},
		"AccessDenied":          {"DeleteMessageBatch", 403, true, "cannot delete messages"},
		"QueueDoesNotExist":     {"ReceiveMessage", 400, true, "there is no such queue"},
		"RequestThrottled":      {"ReceiveMessage", 403, false, "RequestThrottled"},
		"ServiceUnavailable":    {"DeleteMessageBatch", 503, false, "ServiceUnavailable"},
		"Nonsense":              {"ReceiveMessage", 500, false, "Nonsense"},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			f := newSQSFake(t)
			var mended atomic.Bool
			f.fault = func(action string) (int, string) {
				if action == c.action && !mended.Load() {
					return c.status, code
				}
				return 0, ""
			}
			host, pub := sourcetest.NewHost(t), &sourcetest.Publisher{}
			src := host.Open(t, f.settings(t))
			m := f.send("x", nil)
			ended := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { ended <- src.Run(ctx, pub) }()
			if c.fatal {
				err := <-ended
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), sqsSecret) {
					t.Errorf("Run returned %v, want %q", err, c.want)
				}
				return
			}
			eventually(t, says("the trouble is reported"), func() bool {
				return host.Reported() != nil && strings.Contains(host.Reported().Error(), c.want)
			})
			mended.Store(true)
			<-m.gone
			eventually(t, says("the trouble is over"), func() bool { return host.Reported() == nil })
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if n := len(pub.Stored()); n != 1 {
				t.Errorf("published %d times", n)
			}
		})
	}
}

// Nobody answers: that is told apart, and passes.
func TestSQSOutage(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	s := f.settings(t)
	s.QueueURL, _ = value.ParseURL("http://127.0.0.1:1/000000000000/q")
	host := sourcetest.NewHost(t)
	stop := runSQS(t, host.Open(t, s), &sourcetest.Publisher{})
	eventually(t, says("it is reported"), func() bool {
		return host.Reported() != nil && strings.Contains(host.Reported().Error(), "the server does not answer, check endpoint")
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A message that could not be deleted is deleted later, or comes again with its id
// when its time was over.
func TestSQSDeletesInPart(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	s := f.settings(t)
	s.Visibility = value.Duration(2 * time.Second)
	tries := map[string]int{}
	f.entryFault = func(action, handle string) (string, bool) {
		tries[handle]++
		switch {
		case action == "DeleteMessageBatch" && handle == "m-1/1" && tries[handle] < 3:
			return "InternalError", false
		case action == "DeleteMessageBatch" && handle == "m-2/1":
			return "ReceiptHandleIsInvalid", true
		}
		return "", false
	}
	pub := &sourcetest.Publisher{}
	var sent []*sqsFakeMessage
	for i := range 3 {
		sent = append(sent, f.send(fmt.Sprint(i), nil))
	}
	host := sourcetest.NewHost(t)
	stop := runSQS(t, host.Open(t, s), pub)
	for _, m := range sent {
		<-m.gone
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	var ids []string
	for _, e := range pub.Stored() {
		ids = append(ids, e.ID())
	}
	slices.Sort(ids)
	if want := []string{"m-1", "m-2", "m-2", "m-3"}; !slices.Equal(ids, want) {
		t.Errorf("published %v, want %v", ids, want)
	}
}

// While messages come there are several workers, within the bounds; while none come
// there is one.
func TestSQSWorkers(t *testing.T) {
	t.Parallel()
	f := newSQSFake(t)
	s := f.settings(t)
	s.MaxInFlight = 40
	for i := range 1000 {
		f.send(fmt.Sprint(i), nil)
	}
	release := make(chan struct{})
	var inside, most atomic.Int64
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		inside.Add(-1)
		return nil
	}}
	host := sourcetest.NewHost(t)
	src := host.Open(t, s)
	stop := runSQS(t, src, pub)
	eventually(t, says("four batches are in hand"), func() bool { return inside.Load() == 4 })
	eventually(t, says("the lag is known"), func() bool {
		lag, ok := src.(sources.Lagger).Lag()
		return ok && lag.Records == 1000 && lag.Age > 0
	})
	close(release)
	eventually(t, says("all are published"), func() bool { return len(pub.Stored()) == 1000 })
	before := f.count("ReceiveMessage")
	<-time.After(1500 * time.Millisecond)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := f.count("ReceiveMessage") - before; n > 8 {
		t.Errorf("%d requests to an empty queue", n)
	}
	if most.Load() > 4 {
		t.Errorf("%d batches were in hand at once, at most 4 may be", most.Load())
	}
}

func TestSQSFaults(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*sources.SQS){
		"queue_url":                func(s *sources.SQS) { s.QueueURL = value.URL{} },
		"wait":                     func(s *sources.SQS) { s.Wait = value.Duration(21 * time.Second) },
		"visibility":               func(s *sources.SQS) { s.Visibility = value.Duration(time.Second) },
		"max_in_flight":            func(s *sources.SQS) { s.MaxInFlight = 1 },
		"max_bytes":                func(s *sources.SQS) { s.MaxBytes = 0 },
		"unwrap":                   func(s *sources.SQS) { s.Unwrap = "s3" },
		"type":                     func(s *sources.SQS) { s.Type = "" },
		"source":                   func(s *sources.SQS) { s.Source = "a\nb" },
		"content_type of nothing":  func(s *sources.SQS) { s.ContentType = "text/plain; charset" },
		"content_type, not so":     func(s *sources.SQS) { s.ContentType = "a/b c" },
		"source, no URI":           func(s *sources.SQS) { s.Source = "http://[x" },
		"content_type":             func(s *sources.SQS) { s.ContentType = "json" },
		"region":                   func(s *sources.SQS) { s.Region = "Frankfurt am Main" },
		"credentials.secret_key":   func(s *sources.SQS) { s.Credentials.SecretKey = value.Secret{} },
		"credentials.access_key":   func(s *sources.SQS) { s.Credentials.AccessKey = value.Text{} },
		"credentials.instance":     func(s *sources.SQS) { s.Credentials.Instance = true },
		"queue_url names no queue": func(s *sources.SQS) { s.QueueURL, _ = value.ParseURL("http://127.0.0.1:9324/") },
	} {
		s := sources.NewSQS()
		s.QueueURL, _ = value.ParseURL("http://127.0.0.1:9324/000000000000/q")
		s.Credentials.AccessKey, s.Credentials.SecretKey = value.NewText("key"), value.NewSecret(sqsSecret)
		if faults := s.Validate(); len(faults) > 0 {
			t.Fatal(faults)
		}
		change(s)
		key, _, _ := strings.Cut(strings.Replace(want, ",", "", 1), " ")
		if faults := s.Validate(); len(faults) != 1 || faults[0].Key != key {
			t.Errorf("%s: %v", want, faults)
		}
	}
}
