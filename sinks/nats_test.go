package sinks_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
	"sluice/config/nats/natstest"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// natsStream makes a stream for orders and everything below.
func natsStream(t *testing.T, js jetstream.JetStream, change func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	conf := jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders", "orders.>"}}
	if change != nil {
		change(&conf)
	}
	stream, err := js.CreateStream(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func natsSettings(url string) *sinks.NATS {
	s := sinks.NewNATS()
	s.URLs, s.Subject = []string{url}, orders
	return s
}

// natsGot is a message as a subscriber sees it.
func natsGot(t *testing.T, m *natsgo.Msg) sinktest.Got {
	var e bus.Event
	var err error
	if m.Header.Get("content-type") == bus.TypeStructured {
		e, err = bus.ParseJSON(m.Data)
	} else {
		h := http.Header{}
		for name, values := range m.Header {
			if strings.HasPrefix(name, "ce-") && name != "ce-datacontenttype" {
				h[http.CanonicalHeaderKey(name)] = values
			}
		}
		if e, err = bus.FromHTTP(h, nil); err == nil {
			attrs := append([]bus.Attr(nil), e.Attrs()...)
			if ct := m.Header.Get("ce-datacontenttype"); ct != "" {
				attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: ct})
			}
			e, err = bus.NewEvent(attrs, m.Data)
		}
	}
	if err != nil {
		t.Errorf("the message is no CloudEvent: %v", err)
	}
	attempt, _ := strconv.Atoi(m.Header.Get("sluice-attempt"))
	return sinktest.Got{Event: e, ID: m.Header.Get("sluice-delivery-id"), Rule: m.Header.Get("sluice-rule"), Attempt: attempt}
}

func TestNATSContract(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"binary", "structured"} {
		for _, js := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, jetstream %v", mode, js), func(t *testing.T) {
				t.Parallel()
				sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
					server := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "u", password })
					proxy := natstest.NewProxy(t, server)
					conn, stream := server.Client(t, natsgo.UserInfo("u", password))
					natsStream(t, stream, func(c *jetstream.StreamConfig) { c.Duplicates = time.Second })
					got := make(chan sinktest.Got, 2048)
					if _, err := conn.Subscribe(orders, func(m *natsgo.Msg) { got <- natsGot(t, m) }); err != nil {
						t.Fatal(err)
					}
					if err := conn.Flush(); err != nil {
						t.Fatal(err)
					}
					s := natsSettings(proxy.URL)
					s.Mode, s.JetStream, s.User, s.Password = mode, js, value.NewText("u"), value.NewSecret(password)
					sink := openIn(t, s, env)
					// Connected before the suite blocks the way.
					if err := sink.Deliver(t.Context(), sinks.Delivery{Event: sinktest.Events(t)["empty"], ID: "first", Sink: "suite", Attempt: 1}); err != nil {
						t.Fatal(err)
					}
					<-got
					return &sinktest.Subject{
						Sink: sink, Received: got, Hang: proxy.Mute, Carries: true, KeepsKinds: mode == "structured", Secrets: []string{password},
						Faulty: natsFaulty(js, env), Elsewhere: natsElsewhere(s, env),
					}
				})
			})
		}
	}
}

func natsFaulty(js bool, env sinks.Env) func(*testing.T, sinktest.Fault) sinks.Sink {
	return func(t *testing.T, f sinktest.Fault) sinks.Sink {
		server := natstest.Start(t, func(o *server.Options) {
			o.MaxPayload = 1 << 20
			if f == sinktest.FaultLarge {
				o.MaxPayload = 10
			}
			o.Users = []*server.User{{Username: "u", Password: password, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"secret"}},
			}}}
		})
		s := natsSettings(server.URL)
		s.JetStream, s.User, s.Password = js, value.NewText("u"), value.NewSecret(password)
		switch f {
		case sinktest.FaultCredentials:
			s.Password = value.NewSecret("wrong" + password)
		case sinktest.FaultDenied:
			s.Subject = "secret"
		case sinktest.FaultUnknown:
			s.JetStream = true // core NATS takes every subject; no stream has this one
		case sinktest.FaultOutage:
			server.Stop()
		case sinktest.FaultLarge:
		}
		return openIn(t, s, env)
	}
}

func natsElsewhere(s *sinks.NATS, env sinks.Env) func(*testing.T, string, *tls.Config) sinks.Sink {
	return func(t *testing.T, addr string, conf *tls.Config) sinks.Sink {
		other := *s
		other.URLs = []string{"nats://" + addr}
		if conf != nil { // which begins only after the server has said so
			other.URLs, other.TLS = []string{natstest.Start(t, func(o *server.Options) { o.TLS, o.TLSConfig = true, conf }).URL}, &value.TLS{}
		}
		return openIn(t, &other, env)
	}
}

// What becomes of an event: subject, headers, and a payload in its place.
func TestNATSMessages(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	conn, js := s.Client(t)
	natsStream(t, js, nil)
	got := make(chan *natsgo.Msg, 16)
	if _, err := conn.ChanSubscribe("orders.>", got); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	json := bus.Attr{Name: "datacontenttype", Value: "application/json"}
	for name, c := range map[string]struct {
		change  func(*sinks.NATS)
		event   bus.Event
		payload *sinks.Payload
		want    string // or what the error says
	}{
		"type":        {nil, kafkaEvent(t, `{}`, json), nil, `orders.made {} application/json application/json `},
		"data":        {func(s *sinks.NATS) { s.Subject = "orders.{data.a.0}.{id}" }, kafkaEvent(t, `{"a":["x.y"]}`), nil, `orders.x.y.i {"a":["x.y"]} application/json application/json `},
		"no data":     {nil, kafkaEvent(t, ""), nil, `orders.made    `},
		"event in it": {nil, kafkaEvent(t, "{}", bus.Attr{Name: "datacontenttype", Value: "application/cloudevents+json"}), nil, `orders.made {}  application/cloudevents+json `},
		"transformed": {nil, kafkaEvent(t, `{}`, bus.Attr{Name: "dataschema", Value: "http://x/y"}), &sinks.Payload{Body: []byte("new"), ContentType: "text/plain", Path: "/p", Header: map[string]string{"team": "red"}}, `orders.made new text/plain text/plain red`},
		"own header":  {func(s *sinks.NATS) { s.Headers = map[string]value.Text{"team": value.NewText("blue")} }, kafkaEvent(t, `1`, json), nil, `orders.made 1 application/json application/json blue`},
		"lacks it":    {func(s *sinks.NATS) { s.Subject = "orders.{region}" }, kafkaEvent(t, `1`), nil, `the event has no region, which the subject is named after`},
		"forbidden":   {func(s *sinks.NATS) { s.Subject = "orders.{region}" }, kafkaEvent(t, `1`, bus.Attr{Name: "region", Value: "*"}), nil, `cannot be in the name of a subject: it has no spaces and no wildcards`},
		"empty part":  {func(s *sinks.NATS) { s.Subject = "orders.{region}" }, kafkaEvent(t, `1`, bus.Attr{Name: "region", Value: "a..b"}), nil, `cannot be the name of a subject: has an empty part`},
	} {
		settings := natsSettings(s.URL)
		settings.Subject, settings.JetStream = "orders.{type}", false
		if c.change != nil {
			c.change(settings)
		}
		err := open(t, settings).Deliver(t.Context(), sinks.Delivery{Event: c.event, ID: "d", Rule: "r", Sink: "s", Attempt: 2, Payload: c.payload})
		if err != nil {
			var e *sinks.Error
			if !strings.Contains(err.Error(), c.want) || !errors.As(err, &e) || !e.Permanent {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		m := <-got
		text := fmt.Sprintf("%s %s %s %s %s", m.Subject, m.Data, m.Header.Get("content-type"), m.Header.Get("ce-datacontenttype"), m.Header.Get("team"))
		if text != c.want || m.Header.Get("sluice-rule") != "r" || c.payload != nil && m.Header.Get("ce-dataschema") != "" {
			t.Errorf("%s: %q, want %q; %v", name, text, c.want, m.Header)
		}
	}
}

// What is wrong is said in plain words, and with the status that decides what
// happens next.
func TestNATSTrouble(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: password},
			{Username: "few", Password: password, Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"orders.secret"}}}},
			{Username: "deaf", Password: password, Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}},
		}
	})
	_, js := s.Client(t, natsgo.UserInfo("all", password))
	natsStream(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 4 << 10 })
	full := jetstream.StreamConfig{Name: "FULL", Subjects: []string{"full"}, MaxMsgs: 1, Discard: jetstream.DiscardNew}
	if _, err := js.CreateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "full", nil); err != nil {
		t.Fatal(err)
	}
	without := natstest.Start(t, func(o *server.Options) {
		o.JetStream = false
		o.Username, o.Password = "all", password
	})
	dead := natstest.Start(t)
	dead.Stop()
	for name, c := range map[string]struct {
		change    func(*sinks.NATS)
		size      int
		status    int
		permanent bool
		want      string
	}{
		"password":      {func(n *sinks.NATS) { n.Password = value.NewSecret("wrong" + password) }, 1, 401, false, "refused the login: check user and password"},
		"no server":     {func(n *sinks.NATS) { n.URLs = []string{dead.URL} }, 1, 0, false, "nothing answers at this address"},
		"no stream":     {func(n *sinks.NATS) { n.Subject = "invoices" }, 1, 404, false, "no stream has the subject invoices: create one"},
		"no JetStream":  {func(n *sinks.NATS) { n.URLs = []string{without.URL} }, 1, 0, false, "JetStream does not answer: wait for it, check that it is enabled"},
		"other stream":  {func(n *sinks.NATS) { n.Stream = "INVOICES" }, 1, 404, false, "the subject belongs to another stream"},
		"stream full":   {func(n *sinks.NATS) { n.Subject = "full" }, 1, 503, false, "the stream has no room"},
		"stream's size": {nil, 8 << 10, 413, true, "larger than the stream takes"},
		"server's size": {nil, 9 << 20, 413, true, "larger than the server takes"},
		"denied":        {func(n *sinks.NATS) { n.User, n.Subject = value.NewText("few"), "orders.secret" }, 1, 403, false, "give it the permission"},
		"core denied":   {func(n *sinks.NATS) { n.User, n.Subject, n.JetStream = value.NewText("few"), "orders.secret", false }, 1, 403, false, "give it the permission"},
		"no inbox":      {func(n *sinks.NATS) { n.User = value.NewText("deaf") }, 1, 403, false, "give it the permission"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := natsSettings(s.URL)
			settings.User, settings.Password = value.NewText("all"), value.NewSecret(password)
			if c.change != nil {
				c.change(settings)
			}
			sink := open(t, settings)
			for attempt := 1; attempt <= 2; attempt++ {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, strings.Repeat("x", c.size)), ID: "d", Sink: "s", Attempt: attempt})
				cancel()
				var e *sinks.Error
				if !errors.As(err, &e) || e.Status != c.status || e.Permanent != c.permanent || strings.Count(err.Error(), c.want) != 1 ||
					strings.Contains(err.Error(), password) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("attempt %d: %+v, want %d %q", attempt, err, c.status, c.want)
				}
			}
		})
	}
}

// A user that is given its inbox in the end is delivered to without a restart.
func TestNATSPermissionGranted(t *testing.T) {
	t.Parallel()
	users := func(denied ...string) []*server.User {
		return []*server.User{
			{Username: "all", Password: password},
			{Username: "u", Password: password, Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: denied}}},
		}
	}
	for name, grant := range map[string]func(*testing.T, *natstest.Server){
		"by a reload of the server": func(t *testing.T, s *natstest.Server) {
			s.Reload(t, func(o *server.Options) { o.Users = users() })
		},
		"by a restart of the server": func(t *testing.T, s *natstest.Server) {
			s.Stop()
			s.Resume(t, func(o *server.Options) { o.Users = users() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, func(o *server.Options) { o.Users = users("_INBOX.>") })
			_, js := s.Client(t, natsgo.UserInfo("all", password))
			stream := natsStream(t, js, nil)
			settings := natsSettings(s.URL)
			settings.User, settings.Password = value.NewText("u"), value.NewSecret(password)
			sink := open(t, settings)
			deliver := func(attempt int) error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				return sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Sink: "s", Attempt: attempt})
			}
			for attempt := 1; attempt <= 2; attempt++ {
				var e *sinks.Error
				if err := deliver(attempt); !errors.As(err, &e) || e.Status != http.StatusForbidden {
					t.Fatalf("without an inbox: %v", err)
				}
			}
			grant(t, s)
			limit := time.After(10 * time.Second)
			for attempt := 3; ; attempt++ {
				err := deliver(attempt)
				if err == nil {
					break
				}
				select {
				case <-limit:
					t.Fatalf("with the permission: %v", err)
				case <-time.After(50 * time.Millisecond):
				}
			}
			for {
				info, err := stream.Info(t.Context())
				if err == nil {
					if info.State.Msgs != 1 {
						t.Errorf("the stream has %d messages, want 1", info.State.Msgs)
					}
					return
				}
				select {
				case <-limit:
					t.Fatal(err)
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
}

// A batch is published in order, and each message has its own fate. What is
// delivered a second time is dropped by the stream.
func TestNATSBatch(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	stream := natsStream(t, js, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 4 << 10 })
	settings := natsSettings(s.URL)
	settings.Subject = "orders.{region}"
	sink := open(t, settings).(sinks.BatchSink)
	ds := make([]sinks.Delivery, 0, 100)
	for i := range 100 {
		data, attrs := fmt.Sprint(i), []bus.Attr{{Name: "region", Value: "eu"}}
		switch i {
		case 10:
			data = strings.Repeat("x", 8<<10)
		case 20:
			attrs = nil
		}
		ds = append(ds, sinks.Delivery{Event: kafkaEvent(t, data, attrs...), ID: fmt.Sprint("d", i), Sink: "s", Attempt: 1})
	}
	for range 2 {
		failed, err := sink.DeliverBatch(t.Context(), ds)
		if err != nil || len(failed) != len(ds) {
			t.Fatal(err, failed)
		}
		for i, err := range failed {
			if bad := i == 10 || i == 20; bad != (err != nil) {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.Msgs != 98 {
		t.Fatalf("the stream has %d messages, want 98: %v", info.State.Msgs, err)
	}
	seq := uint64(0)
	for i := range 100 {
		if i == 10 || i == 20 {
			continue
		}
		seq++
		if m, err := stream.GetMsg(t.Context(), seq); err != nil || string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("message %d of the stream is %+v, want %d: %v", seq, m, i, err)
		}
	}
}

// Of several subjects in one batch that the user may not publish to, each delivery
// fails: core NATS says so to the connection, and not to who publishes.
func TestNATSCoreDeniesEach(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "few", Password: password, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"orders.us", "orders.uk"}},
		}}}
	})
	settings := natsSettings(s.URL)
	settings.Subject, settings.JetStream = "orders.{region}", false
	settings.User, settings.Password = value.NewText("few"), value.NewSecret(password)
	sink := open(t, settings).(sinks.BatchSink)
	var ds []sinks.Delivery
	for i, region := range []string{"us", "eu", "uk", "eu"} {
		ds = append(ds, sinks.Delivery{Event: kafkaEvent(t, "1", bus.Attr{Name: "region", Value: region}), ID: fmt.Sprint("d", i), Sink: "s", Attempt: 1})
	}
	for range 20 {
		failed, err := sink.DeliverBatch(t.Context(), ds)
		if err != nil || len(failed) != len(ds) {
			t.Fatal(err, failed)
		}
		for i, err := range failed {
			var e *sinks.Error
			if denied := i%2 == 0; denied != (err != nil) || denied && (!errors.As(err, &e) || e.Status != http.StatusForbidden) {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}
}

// The server goes away while many deliveries are under way, and comes back: each is in
// the stream once.
func TestNATSSinkServerRestart(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	_, js := s.Client(t)
	stream := natsStream(t, js, nil)
	sink := open(t, natsSettings(s.URL))
	const workers, each = 16, 50
	var done sync.WaitGroup
	var half sync.WaitGroup
	half.Add(workers)
	resumed := make(chan struct{})
	for w := range workers {
		done.Go(func() {
			for i := range each {
				if i == each/2 {
					half.Done()
				}
				id := fmt.Sprint(w, "-", i)
				for attempt := 1; ; attempt++ {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					err := sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, id), ID: id, Sink: "s", Attempt: attempt})
					cancel()
					if err == nil {
						break
					}
					var e *sinks.Error
					if errors.As(err, &e) && (e.Permanent || e.Status == 404) {
						t.Errorf("an outage is taken for something else: %v", err)
					}
					select {
					case <-time.After(20 * time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
			}
		})
	}
	half.Wait()
	s.Stop()
	go func() {
		defer close(resumed)
		<-time.After(300 * time.Millisecond)
		s.Resume(t)
	}()
	done.Wait()
	<-resumed
	for {
		info, err := stream.Info(t.Context())
		if err == nil {
			if info.State.Msgs != workers*each {
				t.Errorf("the stream has %d messages, want %d", info.State.Msgs, workers*each)
			}
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

func TestNATSValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*sinks.NATS){
		"subject is missing":                    func(s *sinks.NATS) { s.Subject = "" },
		"subject \"a.>\" cannot be":             func(s *sinks.NATS) { s.Subject = "a.>" },
		"subject \"a..b\" cannot be":            func(s *sinks.NATS) { s.Subject = "a..b" },
		"subject {type is not":                  func(s *sinks.NATS) { s.Subject = "a.{type" },
		"mode \"batch\" is not a mode":          func(s *sinks.NATS) { s.Mode = "batch" },
		"stream is for jetstream: true only":    func(s *sinks.NATS) { s.Stream, s.JetStream = "S", false },
		"stream \"a.b\" is not the name":        func(s *sinks.NATS) { s.Stream = "a.b" },
		"headers.Nats-Msg-Id is a header of NA": func(s *sinks.NATS) { s.Headers = map[string]value.Text{"Nats-Msg-Id": value.NewText("x")} },
		"headers.ce-id is a header of the deli": func(s *sinks.NATS) { s.Headers = map[string]value.Text{"ce-id": value.NewText("x")} },
	} {
		s := natsSettings("nats://127.0.0.1:4222")
		change(s)
		if faults := s.Validate(); len(faults) != 1 || !strings.HasPrefix(faults[0].Key+" "+faults[0].Msg, want) {
			t.Errorf("%v, want %q", faults, want)
		}
	}
}
