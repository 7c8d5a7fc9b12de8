package sources

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"sluice/bus"
	"sluice/config/nats"
	"sluice/config/value"
)

// NATS are the settings of the nats source.
type NATS struct {
	nats.Connection `yaml:",inline"`

	JetStream   *NATSStream       `yaml:"jetstream" doc:"Reads a stream of JetStream: every message at least once. Either this or subjects."`
	Subjects    []string          `yaml:"subjects" doc:"Subscribes to subjects of core NATS, which keeps nothing: what is published while nobody listens, or faster than the bus takes it, is lost. A message that asks for a reply gets +ACK once it is durable."`
	Queue       string            `yaml:"queue" doc:"The queue group of subjects: its members share the messages."`
	Type        string            `yaml:"type" doc:"The type of events made of messages that are no CloudEvents."`
	Source      string            `yaml:"source" doc:"The source of such events; the stream is appended, or the subject where there is none. Default: nats:// and the name of the cluster, or of this source where the server is in none."`
	ContentType string            `yaml:"content_type" doc:"The datacontenttype of such events. Default: the header Content-Type; else application/json for JSON and application/octet-stream for the rest."`
	Headers     map[string]string `yaml:"headers" doc:"Headers that become attributes of such events, by name, such as X-Tenant: tenant; what is no text becomes base64. One whose name is that of an extension attribute already is kept under it, the others are left out."`
	MaxBytes    value.Bytes       `yaml:"max_bytes" doc:"How much is in memory at most: of one fetch from a stream, or waiting of each of subjects. A single message that is larger is taken alone."`
}

// NATSStream is a stream of JetStream and the consumer to read it through.
type NATSStream struct {
	Stream   string         `yaml:"stream" doc:"The name of the stream."`
	Consumer string         `yaml:"consumer" doc:"The durable pull consumer, which is where the server keeps how far it was read. It is made where there is none."`
	Subjects []string       `yaml:"subjects" doc:"Which subjects of the stream to read; default: all. With create these are the subjects that the stream takes."`
	Create   bool           `yaml:"create" doc:"Makes the stream where there is none: on disk, without limits."`
	Start    string         `yaml:"start" enum:"first,new" doc:"Where a consumer that is made here begins: first, with all that is there, which is the default; or new, with what comes from now on."`
	AckWait  value.Duration `yaml:"ack_wait" doc:"How long the server waits for a sign of life, before a consumer that is made here gets a message again. Default: 30s."`
}

// NewNATS returns the settings with their defaults.
func NewNATS() *NATS { return &NATS{Type: "nats.message", MaxBytes: 8 << 20} }

// The values of NATSStream.Start.
const (
	natsFirst = "first"
	natsNew   = "new"
)

// Validate is Settings.Validate.
func (s *NATS) Validate() value.Faults {
	faults := s.Connection.Validate()
	subjects := func(key string, list []string) {
		for i, subject := range list {
			if msg := nats.SubjectFault(subject, true); msg != "" {
				faults.Add(fmt.Sprintf("%s[%d]", key, i), "%s", msg)
			} else if slices.Contains(list[:i], subject) {
				faults.Add(fmt.Sprintf("%s[%d]", key, i), "names %s a second time", subject)
			}
		}
	}
	subjects("subjects", s.Subjects)
	switch {
	case s.JetStream == nil && len(s.Subjects) == 0:
		faults.Add("jetstream", "is missing: name a stream and a consumer, or subjects of core NATS")
	case s.JetStream != nil && len(s.Subjects) > 0:
		faults.Add("subjects", "and jetstream exclude each other: the subjects of a stream belong into jetstream.subjects")
	}
	if s.JetStream != nil {
		faults = append(faults, s.JetStream.validate().Under("jetstream")...)
		subjects("jetstream.subjects", s.JetStream.Subjects)
		if s.Queue != "" {
			faults.Add("queue", "is for subjects only: those who share the consumer of a stream share its messages")
		}
	}
	if strings.ContainsAny(s.Queue, " \t\r\n") {
		faults.Add("queue", "has a space in it")
	}
	if s.MaxBytes < 1<<10 || s.MaxBytes > 1<<30 {
		faults.Add("max_bytes", "is out of range: write 1KiB to 1GiB")
	}
	m := s.mapping("cluster")
	_, err := m.plain(&natsMessage{subject: "a", id: "1", data: []byte("{}"), where: "a"}, "")
	faults = append(faults, headerFaults(s.Headers)...)
	return append(faults, sampleFaults(s.ContentType, err)...)
}

func (j *NATSStream) validate() (faults value.Faults) {
	for _, name := range []struct{ key, text string }{{"stream", j.Stream}, {"consumer", j.Consumer}} {
		switch {
		case name.text == "":
			faults.Add(name.key, "is missing: name the %s", name.key)
		case !nats.IsName(name.text):
			faults.Add(name.key, "%q is not the name of a %s: it has no spaces, dots, wildcards or slashes", name.text, name.key)
		}
	}
	if j.Create && len(j.Subjects) == 0 {
		faults.Add("subjects", "is missing: create needs the subjects that the stream takes")
	}
	if j.Start != "" && j.Start != natsFirst && j.Start != natsNew {
		faults.Add("start", "%q is not a place to start: write %s or %s", j.Start, natsFirst, natsNew)
	}
	if d := time.Duration(j.AckWait); d != 0 && (d < time.Second || d > time.Hour) {
		faults.Add("ack_wait", "is out of range: write 1s to 1h")
	}
	return faults
}

func (s *NATS) mapping(cluster string) natsMapping {
	source := strings.TrimSuffix(s.Source, "/")
	if s.Source == "" {
		source = "nats://" + cluster
	}
	return natsMapping{source: source, typ: s.Type, contentType: s.ContentType, headers: newHeaderNames(s.Headers)}
}

// Open is Settings.Open.
func (s *NATS) Open(_ context.Context, env Env) (Source, error) {
	// Made and dropped to find what is wrong with the files.
	if _, err := s.Options(env.Name, nats.NewWatch(nil, nil)); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return &natsSource{env: env, settings: s}, nil
}

// What is in hand at a time, and how long things may take.
const (
	natsBatch = 1000             // messages in one Publish
	natsGrace = 10 * time.Second // for what is in flight when the source stops
	natsAsk   = 10 * time.Second // for an answer of the server; and how often the lag is asked for
)

type natsSource struct {
	env      Env
	settings *NATS
	lag      atomic.Pointer[natsLag] // of the current Run
}

// Lag is Lagger.Lag. Core NATS keeps nothing, so there is none.
func (s *natsSource) Lag() (Lag, bool) {
	if l := s.lag.Load(); l != nil {
		return l.now()
	}
	return Lag{}, false
}

// Run is Source.Run.
func (s *natsSource) Run(ctx context.Context, pub bus.Publisher) error {
	run := &natsRun{source: s, feed: feed{&s.env, pub}, watch: nats.NewWatch(s.env.report, s.slow)}
	opts, err := s.settings.Options(s.env.Name, run.watch)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	run.conn, err = s.settings.Dial(ctx, opts)
	if ctx.Err() != nil {
		if err == nil {
			run.conn.Close()
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer run.close()
	cluster := run.conn.ConnectedClusterName()
	if cluster == "" {
		cluster = s.env.Name
	}
	run.mapping = s.settings.mapping(cluster)
	within, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	run.fail = fail
	if err := run.read(within); err != nil || ctx.Err() != nil {
		return err
	}
	return context.Cause(within)
}

// read reads until ctx ends.
func (r *natsRun) read(ctx context.Context) error {
	// What is in flight when ctx ends gets some more time.
	flight, land := context.WithCancel(context.WithoutCancel(ctx))
	defer land()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(natsGrace, land) })
	defer stop()
	if r.source.settings.JetStream != nil {
		return r.stream(ctx, flight)
	}
	return r.core(ctx, flight)
}

// slow is told when a subscription of core NATS drops messages.
func (s *natsSource) slow(sub *natsgo.Subscription) {
	s.env.report(fmt.Errorf("messages of %s are dropped: they come faster than the bus takes them, and core NATS keeps none", sub.Subject))
}

// natsRun is one Run with its connection.
type natsRun struct {
	source  *natsSource
	conn    *natsgo.Conn
	watch   *nats.Watch
	feed    feed
	mapping natsMapping
	fail    context.CancelCauseFunc // ends the run
}

// close makes sure that the last acknowledgements are on their way.
func (r *natsRun) close() {
	if err := r.conn.FlushTimeout(2 * time.Second); err != nil {
		r.source.env.Log.Debug("the last acknowledgements may be lost", "err", err)
	}
	r.conn.Close()
}

// over is why the run cannot go on; nil while it can.
func (r *natsRun) over() error {
	switch state := r.watch.State(); {
	case state.Closed:
		return fmt.Errorf("the connection is closed: %w", state.Err)
	case state.Denied != nil:
		return state.Denied
	}
	return nil
}

// natsLag knows how far a consumer is behind.
type natsLag struct {
	mu     sync.Mutex
	known  bool
	ahead  int64     // messages that are not in hand yet
	hand   int64     // messages in hand
	oldest time.Time // of those
}

func (l *natsLag) now() (Lag, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lag := Lag{Records: l.ahead + l.hand}
	if !l.oldest.IsZero() {
		lag.Age = max(0, time.Since(l.oldest))
	}
	return lag, l.known
}

// hold notes what is in hand, and how many messages come behind it.
func (l *natsLag) hold(n int, oldest time.Time, pending uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.hand, l.oldest = true, int64(n), oldest
	l.ahead = int64(min(pending, 1<<62)) //nolint:gosec // bounded
}

// done notes that nothing is in hand any more.
func (l *natsLag) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hand, l.oldest = 0, time.Time{}
}

// learn notes what the server says of the consumer.
func (l *natsLag) learn(pending uint64, unacknowledged int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = true
	l.ahead = int64(min(pending, 1<<62)) + max(0, int64(unacknowledged)-l.hand) //nolint:gosec // bounded
}
