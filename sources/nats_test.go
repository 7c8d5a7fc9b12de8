package sources_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
	"sluice/config/nats/natstest"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

const (
	natsStream   = "ORDERS"
	natsConsumer = "sluice"
	natsSubject  = "orders.eu"
)

// natsSettings read a stream that the source makes.
func natsSettings(s *natstest.Server) *sources.NATS {
	settings := sources.NewNATS()
	settings.URLs = []string{s.URL}
	settings.JetStream = &sources.NATSStream{
		Stream: natsStream, Consumer: natsConsumer, Subjects: []string{"orders.>"}, Create: true, AckWait: value.Duration(2 * time.Second),
	}
	return settings
}

// newNATSStream makes the stream, for messages that come before the source does.
func newNATSStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: natsStream, Subjects: []string{"orders.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// natsEvent is a message in binary mode.
func natsEvent(subject string, e bus.Event) *natsgo.Msg {
	m := natsgo.NewMsg(subject)
	m.Data = e.Data()
	for _, a := range e.Attrs() {
		m.Header.Set("ce-"+a.Name, a.Value)
	}
	return m
}

// acknowledged waits until the consumer is beyond a message.
func acknowledged(ctx context.Context, stream jetstream.Stream, seq uint64) error {
	for {
		if c, err := stream.Consumer(ctx, natsConsumer); err == nil && c.CachedInfo().AckFloor.Stream >= seq {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func poisonMessage(subject string) *natsgo.Msg {
	return &natsgo.Msg{Subject: subject, Header: natsgo.Header{"ce-id": {"poison"}}, Data: []byte("\x00raw")}
}

func TestNATSContract(t *testing.T) {
	t.Parallel()
	t.Run("jetstream", func(t *testing.T) {
		t.Parallel()
		sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
			s := natstest.Start(t)
			_, js := s.Client(t)
			stream := newNATSStream(t, js)
			host := sourcetest.NewHost(t)
			send := func(ctx context.Context, m *natsgo.Msg) error {
				ack, err := js.PublishMsg(ctx, m)
				if err != nil {
					return err
				}
				return acknowledged(ctx, stream, ack.Sequence)
			}
			return &sourcetest.Subject{
				Source: host.Open(t, natsSettings(s)),
				Send:   func(ctx context.Context, e bus.Event) error { return send(ctx, natsEvent(natsSubject, e)) },
				Poison: func(ctx context.Context) {
					if err := send(ctx, poisonMessage(natsSubject)); err != nil {
						t.Error(err)
					}
					if got := host.Rejected(); len(got) != 1 || string(got[0].Data) != "\x00raw" || got[0].Where != "ORDERS/2 (orders.eu)" {
						t.Errorf("rejected: %+v", got)
					}
				},
			}
		})
	})
	t.Run("core", func(t *testing.T) {
		t.Parallel()
		sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
			s := natstest.Start(t)
			conn, _ := s.Client(t)
			host := sourcetest.NewHost(t)
			settings := sources.NewNATS()
			settings.URLs, settings.Subjects, settings.Queue = []string{s.URL}, []string{"orders.*", "invoices"}, "q"
			return &sourcetest.Subject{
				Source: host.Open(t, settings),
				Send: func(ctx context.Context, e bus.Event) error {
					reply, err := conn.RequestMsgWithContext(ctx, natsEvent(natsSubject, e))
					if err == nil && string(reply.Data) != "+ACK" {
						err = errors.New(string(reply.Data))
					}
					return err
				},
				Poison: func(ctx context.Context) {
					reply, err := conn.RequestMsgWithContext(ctx, poisonMessage("invoices"))
					if err != nil || !strings.HasPrefix(string(reply.Data), "-ERR specversion: missing") {
						t.Errorf("the reply to poison: %v %v", reply, err)
					}
					if got := host.Rejected(); len(got) != 1 || string(got[0].Data) != "\x00raw" {
						t.Errorf("rejected: %+v", got)
					}
				},
			}
		})
	})
}

// natsRunning runs a source until the test ends, or stop is called.
func natsRunning(t *testing.T, src sources.Source, pub bus.Publisher) (stop func() error, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, pub) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("Run does not return")
		}
	}, done
}

func natsUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// The server goes away in the middle of a stream, and comes back. Nothing is missing,
// the order is kept, and what comes twice has the same id.
func TestNATSServerRestart(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	stream := newNATSStream(t, js)
	const before, after = 3000, 2000
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			if _, err := js.PublishAsync(natsSubject, fmt.Appendf(nil, "%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-time.After(30 * time.Second):
			t.Fatal("the stream does not take the messages")
		}
	}
	publish(0, before)
	host := sourcetest.NewHost(t)
	src := host.Open(t, natsSettings(s))
	half, again := make(chan struct{}), make(chan struct{})
	calls := 0
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if calls++; calls == 2 {
			close(half)
			<-again
		}
		return nil
	}}
	stop, _ := natsRunning(t, src, pub)
	<-half
	s.Stop()
	natsUntil(t, "the source shows that the server is gone", func() bool {
		err := host.Reported()
		return err != nil && strings.Contains(err.Error(), "connect")
	})
	close(again)
	s.Resume(t)
	natsUntil(t, "the client is connected", func() bool {
		_, err := stream.Info(t.Context())
		return err == nil
	})
	publish(before, before+after)
	natsUntil(t, "every message arrives", func() bool { return len(natsIDs(pub.Stored())) >= before+after })
	natsUntil(t, "the trouble is over", func() bool { return host.Reported() == nil })
	if err := acknowledged(t.Context(), stream, before+after); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	ids := natsIDs(pub.Stored())
	if len(ids) != before+after {
		t.Errorf("%d different ids, want %d", len(ids), before+after)
	}
	for i := range before + after {
		if n := len(ids[fmt.Sprint(i)]); n != 1 {
			t.Fatalf("message %d has %d ids", i, n)
		}
	}
	t.Logf("%d messages, %d stored: %d were repeated", before+after, len(pub.Stored()), len(pub.Stored())-before-after)
}

// natsIDs are the ids of events by their data.
func natsIDs(events []bus.Event) map[string]map[string]bool {
	ids := map[string]map[string]bool{}
	for _, e := range events {
		data := string(e.Data())
		if ids[data] == nil {
			ids[data] = map[string]bool{}
		}
		ids[data][e.ID()] = true
	}
	return ids
}

// While the bus takes nothing the server is told so, and does not send the messages
// again; the lag shows them.
func TestNATSBusy(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	stream := newNATSStream(t, js)
	for i := range 5 {
		if _, err := js.Publish(t.Context(), natsSubject, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	host := sourcetest.NewHost(t)
	settings := natsSettings(s)
	settings.JetStream.AckWait = value.Duration(time.Second)
	src := host.Open(t, settings)
	release := make(chan struct{})
	pub := &sourcetest.Publisher{Before: func(context.Context) error { <-release; return nil }}
	stop, _ := natsRunning(t, src, pub)
	natsUntil(t, "the lag is known", func() bool {
		lag, ok := src.(sources.Lagger).Lag()
		return ok && lag.Records == 5 && lag.Age > 2500*time.Millisecond
	})
	close(release)
	if err := acknowledged(t.Context(), stream, 5); err != nil {
		t.Fatal(err)
	}
	c, err := stream.Consumer(t.Context(), natsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if info := c.CachedInfo(); info.NumRedelivered != 0 || info.Delivered.Consumer != 5 {
		t.Errorf("messages were delivered again: %+v", info)
	}
	natsUntil(t, "there is no lag any more", func() bool {
		lag, ok := src.(sources.Lagger).Lag()
		return ok && lag == sources.Lag{}
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := len(pub.Stored()); n != 5 {
		t.Errorf("%d events are stored", n)
	}
}

// A message that was not acknowledged comes again, with the same id; one that is
// larger than a fetch comes alone.
func TestNATSAgain(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	newNATSStream(t, js)
	sizes := []int{10, 20 << 10, 10}
	for _, size := range sizes {
		if _, err := js.Publish(t.Context(), natsSubject, []byte(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
	}
	settings := natsSettings(s)
	settings.MaxBytes = 2 << 10
	var runs [2][]bus.Event
	for i := range runs {
		host := sourcetest.NewHost(t)
		src := host.Open(t, settings)
		pub := &sourcetest.Publisher{}
		stop, _ := natsRunning(t, src, pub)
		natsUntil(t, "three messages arrive", func() bool { return len(pub.Stored()) >= len(sizes) })
		if err := stop(); err != nil {
			t.Error(err)
		}
		runs[i] = pub.Stored()
		if err := js.DeleteConsumer(t.Context(), natsStream, natsConsumer); err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range sizes {
		a, b := runs[0][i], runs[1][i]
		if len(a.Data()) != size || a.ID() != b.ID() || a.Source() != b.Source() || a.Source() != "nats://test/ORDERS" {
			t.Errorf("message %d: %d bytes, %s %s and then %s %s", i, len(a.Data()), a.Source(), a.ID(), b.Source(), b.ID())
		}
	}
}

// What is wrong is said in plain words.
func TestNATSFaults(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "marker-secret"},
			{Username: "few", Password: "marker-secret", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.STREAM.>", "$JS.API.CONSUMER.INFO.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		}
	})
	_, js := s.Client(t, natsgo.UserInfo("all", "marker-secret"))
	stream := newNATSStream(t, js)
	for name, ack := range map[string]jetstream.AckPolicy{natsConsumer: jetstream.AckExplicitPolicy, "none": jetstream.AckNonePolicy} {
		if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: name, AckPolicy: ack, FilterSubject: "orders.>"}); err != nil {
			t.Fatal(err)
		}
	}
	dead := natstest.Start(t)
	dead.Stop()
	for name, c := range map[string]struct {
		change func(*sources.NATS)
		want   string
	}{
		"password":    {func(n *sources.NATS) { n.Password = value.NewSecret("wrong-secret") }, "refused the login: check user and password"},
		"login":       {func(n *sources.NATS) { n.User, n.Password = value.Text{}, value.Secret{} }, "refused the login: check user and password"},
		"address":     {func(n *sources.NATS) { n.URLs = []string{dead.URL} }, "nothing answers at this address"},
		"tls":         {func(n *sources.NATS) { n.TLS = &value.TLS{} }, "does not offer TLS: leave tls out"},
		"stream":      {func(n *sources.NATS) { n.JetStream.Stream, n.JetStream.Create = "OTHER", false }, "there is no such stream: create it"},
		"no acks":     {func(n *sources.NATS) { n.JetStream.Consumer = "none" }, "needs no acknowledgements"},
		"filter":      {func(n *sources.NATS) { n.JetStream.Subjects = []string{"orders.eu"} }, "reads the subjects [orders.>] and not [orders.eu]"},
		"permission":  {func(n *sources.NATS) { n.User = value.NewText("few") }, "give it the permission"},
		"core denied": {func(n *sources.NATS) { n.User, n.JetStream, n.Subjects = value.NewText("few"), nil, []string{"secret"} }, "give it the permission"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := natsSettings(s)
			settings.User, settings.Password = value.NewText("all"), value.NewSecret("marker-secret")
			c.change(settings)
			_, ended := natsRunning(t, sourcetest.NewHost(t).Open(t, settings), &sourcetest.Publisher{})
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "-secret") {
					t.Errorf("Run returned %v, want %q", err, c.want)
				}
			case <-time.After(30 * time.Second):
				t.Error("Run does not return")
			}
		})
	}
}

// The stream and its consumer are deleted while the source reads: it says so, and
// makes them again with the next Run.
func TestNATSDeleted(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	src := sourcetest.NewHost(t).Open(t, natsSettings(s))
	for round := range 2 {
		pub := &sourcetest.Publisher{}
		_, ended := natsRunning(t, src, pub)
		natsUntil(t, "the stream is there", func() bool {
			_, err := js.Publish(t.Context(), natsSubject, []byte("x"))
			return err == nil
		})
		natsUntil(t, "the message arrives", func() bool { return len(pub.Stored()) > 0 })
		if err := js.DeleteStream(t.Context(), natsStream); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "there is no such") {
				t.Errorf("round %d: Run returned %v", round, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: Run does not return", round)
		}
	}
}

// Core NATS drops what the bus does not take in time; that is counted and shown.
func TestNATSSlow(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	conn, _ := s.Client(t)
	host := sourcetest.NewHost(t)
	settings := sources.NewNATS()
	settings.URLs, settings.Subjects, settings.MaxBytes = []string{s.URL}, []string{natsSubject}, 64<<10
	entered, release := make(chan struct{}, 1000), make(chan struct{})
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	stop, _ := natsRunning(t, host.Open(t, settings), pub)
	go func() { _, _ = conn.Request(natsSubject, []byte("first"), 20*time.Second) }()
	natsUntil(t, "the subscription is there", func() bool {
		select {
		case <-entered:
			return true
		default:
			_ = conn.PublishRequest(natsSubject, "nobody", []byte("first"))
			return false
		}
	})
	const sent = 500
	for range sent {
		if err := conn.Publish(natsSubject, make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	natsUntil(t, "the loss is shown", func() bool {
		err := host.Reported()
		return err != nil && strings.Contains(err.Error(), "messages of orders.eu are dropped")
	})
	close(release)
	natsUntil(t, "the loss is counted", func() bool { return host.Observed()[sources.Overloaded] > 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	large := 0
	for _, e := range pub.Stored() {
		if len(e.Data()) == 1<<10 {
			large++
		}
	}
	if dropped := host.Observed()[sources.Overloaded]; large+dropped != sent {
		t.Errorf("%d were stored and %d counted as dropped, of %d", large, dropped, sent)
	}
}

func TestNATSValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*sources.NATS){
		"jetstream is missing":                  func(s *sources.NATS) { s.JetStream = nil },
		"subjects and jetstream exclude":        func(s *sources.NATS) { s.Subjects = []string{"a"} },
		"jetstream.stream is missing":           func(s *sources.NATS) { s.JetStream.Stream = "" },
		"jetstream.consumer \"a.b\" is not":     func(s *sources.NATS) { s.JetStream.Consumer = "a.b" },
		"jetstream.subjects is missing":         func(s *sources.NATS) { s.JetStream.Subjects = nil },
		"jetstream.subjects[1] names a a secon": func(s *sources.NATS) { s.JetStream.Subjects = []string{"a", "a"} },
		"jetstream.subjects[0] has an empty":    func(s *sources.NATS) { s.JetStream.Subjects = []string{"a..b"} },
		"jetstream.start \"last\" is not":       func(s *sources.NATS) { s.JetStream.Start = "last" },
		"jetstream.ack_wait is out of range":    func(s *sources.NATS) { s.JetStream.AckWait = 1 },
		"queue is for subjects only":            func(s *sources.NATS) { s.Queue = "q" },
		"max_bytes is out of range":             func(s *sources.NATS) { s.MaxBytes = 1 },
		"content_type \"json\" is not":          func(s *sources.NATS) { s.ContentType = "json" },
		"type ":                                 func(s *sources.NATS) { s.Type = "" },
		"source ":                               func(s *sources.NATS) { s.Source = "a\nb" },
		"urls is missing":                       func(s *sources.NATS) { s.URLs = nil },
	} {
		s := sources.NewNATS()
		s.URLs = []string{"nats://127.0.0.1:4222"}
		s.JetStream = &sources.NATSStream{Stream: natsStream, Consumer: natsConsumer, Subjects: []string{"orders.>"}, Create: true}
		if faults := s.Validate(); len(faults) > 0 {
			t.Fatal(faults)
		}
		change(s)
		if faults := s.Validate(); len(faults) != 1 || !strings.HasPrefix(faults[0].Key+" "+faults[0].Msg, want) {
			t.Errorf("%v, want %q", faults, want)
		}
	}
}
