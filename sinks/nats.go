package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
	"sluice/config/nats"
	"sluice/config/value"
)

// NATS are the settings of the nats sink.
type NATS struct {
	nats.Connection `yaml:",inline"`

	Subject   string                `yaml:"subject" doc:"The subject; {name} in it stands for an attribute, {data.path} for what a gjson path finds in the data."`
	JetStream bool                  `yaml:"jetstream" doc:"true: a stream has to take the message and say so; it drops what it gets a second time within its duplicate window. false: core NATS, where the server has the message and hands it to whoever listens, at most once."`
	Stream    string                `yaml:"stream" doc:"The stream that has to take the message. Default: whichever has the subject."`
	Mode      string                `yaml:"mode" enum:"binary,structured" doc:"binary: the data as the message and the attributes as headers; structured: all of it as one JSON document."`
	Headers   map[string]value.Text `yaml:"headers" doc:"More headers for each message."`
}

// NewNATS returns the settings with their defaults.
func NewNATS() *NATS { return &NATS{JetStream: true, Mode: modeBinary} }

// Validate is Settings.Validate.
func (s *NATS) Validate() value.Faults {
	faults := s.Connection.Validate()
	if s.Subject == "" {
		faults.Add("subject", "is missing: name the subject, such as orders or orders.{type}")
	} else if _, err := parseSubject(s.Subject); err != nil {
		faults.Add("subject", "%v", err)
	}
	if s.Mode != modeBinary && s.Mode != modeStructured {
		faults.Add("mode", "%q is not a mode: write %q or %q", s.Mode, modeBinary, modeStructured)
	}
	switch {
	case s.Stream != "" && !s.JetStream:
		faults.Add("stream", "is for jetstream: true only")
	case s.Stream != "" && !nats.IsName(s.Stream):
		faults.Add("stream", "%q is not the name of a stream: it has no spaces, dots, wildcards or slashes", s.Stream)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		msg := headerFault(name, s.Headers[name].Value())
		if msg == "" && strings.HasPrefix(strings.ToLower(name), "nats-") {
			msg = "is a header of NATS itself: leave it out"
		}
		if msg != "" {
			faults.Add("headers."+name, "%s", msg)
		}
	}
	return faults
}

// parseSubject reads a subject such as orders or orders.{type}.{data.region}.
func parseSubject(text string) (nameTemplate, error) {
	return nameKind{
		what: "subject",
		part: func(s string) string {
			if strings.ContainsAny(s, "*> \t\r\n") {
				return "it has no spaces and no wildcards"
			}
			return ""
		},
		whole: func(s string) string { return nats.SubjectFault(s, false) },
	}.parse(text)
}

// What a client holds for a server that does not acknowledge it.
const (
	natsInFlight = 4096             // messages
	natsAckWait  = 30 * time.Second // until one counts as lost
	natsAsk      = 2 * time.Second  // for an answer about streams
	natsAway     = 5 * time.Second  // for a connection that is lost to be made again, before a delivery has failed
	natsDeaf     = time.Second      // until a connection without an inbox is made anew: the permission may have been granted
)

// Open is Settings.Open. The sink connects with the first delivery.
func (s *NATS) Open(ctx context.Context, env Env) (Sink, error) {
	if err := env.unguarded("nats"); err != nil {
		return nil, err
	}
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	subject, err := parseSubject(s.Subject)
	if err != nil {
		return nil, err
	}
	// Made and dropped to find what is wrong with the files.
	if _, err := s.Options(env.Name, nats.NewWatch(nil, nil)); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	sink := &natsSink{settings: s, name: env.Name, subject: subject, headers: natsgo.Header{}}
	sink.life, sink.end = context.WithCancel(context.WithoutCancel(ctx))
	for name, text := range s.Headers {
		sink.headers[name] = []string{text.Value()}
	}
	return sink, nil
}

// natsSink publishes messages. Those of all deliveries are on their way at once, over
// one connection.
type natsSink struct {
	contact
	settings *NATS
	name     string
	subject  nameTemplate
	headers  natsgo.Header
	link     natsLink
	life     context.Context // until Close
	end      context.CancelFunc
}

// Deliver is Sink.Deliver.
func (s *natsSink) Deliver(ctx context.Context, d Delivery) error {
	return s.write(ctx, []Delivery{d})[0]
}

// DeliverBatch is BatchSink.DeliverBatch. Each message has its own fate.
func (s *natsSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	return together(s.write(ctx, ds))
}

// write publishes messages in their order and waits for what becomes of each.
func (s *natsSink) write(ctx context.Context, ds []Delivery) []error {
	errs := make([]error, len(ds))
	if ctx.Err() != nil {
		return fill(errs, context.Cause(ctx))
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return fill(errs, s.verdict(ctx, err))
	}
	msgs := make([]*natsgo.Msg, len(ds))
	for i := range ds {
		if msgs[i], err = s.message(ds[i]); err != nil {
			errs[i] = Permanent(err)
		}
	}
	conn.publish(ctx, msgs, errs, s.settings)
	for i, err := range errs {
		if err != nil && msgs[i] != nil {
			errs[i] = s.verdict(ctx, err)
		}
	}
	return errs
}

// verdict is the error of a delivery in the terms of the bus's policy: the status is
// what an HTTP function would have answered.
func (s *natsSink) verdict(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	class, explained := nats.Explain(err)
	e := &Error{Err: fmt.Errorf("publish to NATS: %w", explained)}
	var api *jetstream.APIError
	var none *noStream
	if errors.As(err, &none) {
		class = nats.Unknown
	}
	switch class {
	case nats.Login:
		e.Status = http.StatusUnauthorized
	case nats.Denied:
		e.Status = http.StatusForbidden
	case nats.Unknown:
		e.Status = http.StatusNotFound
	case nats.Large:
		e.Status, e.Permanent = http.StatusRequestEntityTooLarge, true
	case nats.Invalid:
		e.Status, e.Permanent = http.StatusBadRequest, true
	default:
		if errors.As(err, &api) && api.Code >= 400 {
			e.Status = api.Code
		}
	}
	return e
}

// Close is io.Closer.
func (s *natsSink) Close() error {
	s.end()
	s.link.close()
	return nil
}

// message is the message of a delivery: CloudEvents NATS protocol binding, in binary
// mode as in 1.0.3. The type of the data is in ce-datacontenttype, as the binding
// says, and in Content-Type, where others look for it.
func (s *natsSink) message(d Delivery) (*natsgo.Msg, error) {
	subject, err := s.subject.of(d.Event)
	if err != nil {
		return nil, err
	}
	m := &natsgo.Msg{Subject: subject, Data: d.Event.Data(), Header: make(natsgo.Header, len(s.headers)+d.Event.NumAttributes()+8)}
	maps.Copy(m.Header, s.headers)
	set := func(name, text string) {
		if text != "" {
			m.Header[name] = []string{text}
		}
	}
	if s.settings.Mode == modeStructured && d.Payload == nil {
		m.Data = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
		set(natsContentType, bus.TypeStructured)
	} else {
		h := make(http.Header, d.Event.NumAttributes()+1)
		d.Event.AppendHTTPHeader(h)
		if p := d.Payload; p != nil && p.Body != nil {
			m.Data = p.Body
			h.Set("Content-Type", p.ContentType)
			delete(h, "Ce-Dataschema")
		}
		for name, values := range h {
			m.Header[strings.ToLower(name)] = values
		}
		contentType := h.Get("Content-Type")
		set("ce-datacontenttype", contentType)
		if len(contentType) >= len(cloudEvents) && strings.EqualFold(contentType[:len(cloudEvents)], cloudEvents) {
			delete(m.Header, natsContentType) // it would say that the message is in structured mode
		}
	}
	if d.Payload != nil {
		for name, text := range d.Payload.Header {
			set(name, text)
		}
	}
	set("sluice-delivery-id", d.ID)
	set("sluice-attempt", strconv.Itoa(d.Attempt))
	set("sluice-rule", d.Rule)
	set("sluice-sink", d.Sink)
	if s.settings.JetStream {
		set(natsgo.MsgIdHdr, d.ID)
	}
	return m, nil
}

const natsContentType = "content-type"

// natsLink is the connection of a sink, made when it is first wanted, and anew when
// it was given up.
type natsLink struct {
	mu      sync.Mutex
	conn    *natsConn
	dialing *natsDial // under way
	closed  bool
}

type natsDial struct {
	done chan struct{}
	conn *natsConn // when done
	err  error
}

// connect is the connection, once there is one that works.
func (s *natsSink) connect(ctx context.Context) (*natsConn, error) {
	l := &s.link
	l.mu.Lock()
	if c := l.conn; c != nil {
		switch state := c.watch.State(); {
		case state.Closed:
		case deaf(state.Denied) && time.Since(c.made) >= natsDeaf:
			// The server would not be asked for the inbox again on this connection.
			c.dropped.Store(true)
			c.nc.Close()
		default:
			l.mu.Unlock()
			return c, nil
		}
		l.conn = nil
	}
	if l.closed {
		l.mu.Unlock()
		return nil, natsgo.ErrConnectionClosed
	}
	if l.dialing == nil {
		l.dialing = &natsDial{done: make(chan struct{})}
		go s.dial(l.dialing)
	}
	d := l.dialing
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the connection is not made yet: %w", context.Cause(ctx))
	}
}

// dial makes the connection for all who wait for one.
func (s *natsSink) dial(d *natsDial) {
	d.conn, d.err = s.newConn()
	if d.err == nil {
		s.is(d.conn.watch.State().Err)
	} else {
		s.is(d.err)
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.link.dialing = nil; d.err == nil {
		s.link.conn = d.conn
		if s.link.closed {
			d.conn.nc.Close()
		}
	}
	close(d.done)
}

func (s *natsSink) newConn() (*natsConn, error) {
	c := &natsConn{made: time.Now()}
	c.watch = nats.NewWatch(func(error) { // what is not about the connection is shown by the deliveries
		if !c.dropped.Load() {
			s.is(c.watch.State().Err)
		}
	}, nil)
	opts, err := s.settings.Options(s.name, c.watch)
	if err != nil {
		return nil, err
	}
	// Nothing is kept for a server that is gone: the bus tries again, and knows why.
	if c.nc, err = s.settings.Dial(s.life, append(opts, natsgo.ReconnectBufSize(-1))); err != nil {
		return nil, err
	}
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(natsInFlight), jetstream.WithPublishAsyncTimeout(natsAckWait))
	return c, err
}

func (l *natsLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed = true; l.conn != nil {
		l.conn.nc.Close()
	}
}
