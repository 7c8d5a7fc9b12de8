package sources

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/config/access"
	"sluice/config/value"
)

// HTTP are the settings of the http source.
type HTTP struct {
	Path      string            `yaml:"path" doc:"The path that events are POSTed to, such as /in/orders."`
	Auth      access.Auth       `yaml:"auth" doc:"Who may send here, in place of server.auth: callers of this source's own, or none for everybody."`
	Set       map[string]string `yaml:"set" doc:"Attributes that every event gets here, whatever the sender says, such as source: /tenants/acme."`
	Handshake *Handshake        `yaml:"handshake" doc:"The answer to a CloudEvents sender that asks first whether it may deliver; it is refused when left out."`
	Limits    Limits            `yaml:"limits" doc:"What one request may hold and how long it may take."`
}

// Limits are what a request may ask of the server. A field that is 0 has the value
// of DefaultLimits.
type Limits struct {
	Event       value.Bytes    `yaml:"event" doc:"The size of one event."`
	Batch       value.Bytes    `yaml:"batch" doc:"The size of a whole batch."`
	BatchEvents int            `yaml:"batch_events" doc:"How many events a batch may have."`
	BodyTimeout value.Duration `yaml:"body_timeout" doc:"How long a client may take to send its request."`
	Stall       value.Duration `yaml:"stall" doc:"How long a client may send nothing before min_rate counts."`
	MinRate     value.Bytes    `yaml:"min_rate" doc:"How much a client has to send in a second."`
}

// DefaultLimits are what is right for events of up to 1 MiB over any network.
func DefaultLimits() Limits {
	return Limits{
		Event:       1 << 20,
		Batch:       16 << 20,
		BatchEvents: 1000,
		BodyTimeout: value.Duration(60 * time.Second),
		Stall:       value.Duration(5 * time.Second),
		MinRate:     16 << 10,
	}
}

// orDefault fills in what is 0.
func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.Event != 0 {
		d.Event = l.Event
	}
	if l.Batch != 0 {
		d.Batch = l.Batch
	}
	if l.BatchEvents != 0 {
		d.BatchEvents = l.BatchEvents
	}
	if l.BodyTimeout != 0 {
		d.BodyTimeout = l.BodyTimeout
	}
	if l.Stall != 0 {
		d.Stall = l.Stall
	}
	if l.MinRate != 0 {
		d.MinRate = l.MinRate
	}
	return d
}

// NewHTTP returns the settings with their defaults.
func NewHTTP() *HTTP { return &HTTP{Limits: DefaultLimits()} }

// Validate is Settings.Validate.
func (s *HTTP) Validate() value.Faults {
	faults := pathFaults(s.Path)
	for _, size := range []struct {
		key string
		n   int64
	}{{"event", int64(s.Limits.Event)}, {"batch", int64(s.Limits.Batch)}, {"batch_events", int64(s.Limits.BatchEvents)}} {
		if size.n < 0 {
			faults.Add("limits."+size.key, "is negative: write a limit of at least 1, or leave it out")
		}
	}
	if l := s.Limits.orDefault(); l.Batch < l.Event {
		faults.Add("limits.batch", "is smaller than limits.event: a batch of one event could not be sent")
	}
	faults = append(faults, s.Auth.ValidatePublish().Under("auth")...)
	faults = append(faults, s.Handshake.validate().Under("handshake")...)
	return append(faults, s.setFaults().Under("set")...)
}

// Certified is Certified.Certified.
func (s *HTTP) Certified() bool { return len(s.Auth.Certificates) > 0 }

// setFaults finds attributes that no event could have.
func (s *HTTP) setFaults() (faults value.Faults) {
	attrs := s.set()
	for i, a := range attrs {
		probe := []bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/"}, {Name: "type", Value: "t"}}
		probe = append(slices.DeleteFunc(probe, func(p bus.Attr) bool { return p.Name == a.Name }), attrs[i])
		switch _, err := bus.NewEvent(probe, nil); {
		case a.Name == "id" || a.Name == "specversion" || a.Name == "datacontenttype":
			faults.Add(a.Name, "is the sender's own: it cannot be the same for every event")
		case a.Value == "":
			faults.Add(a.Name, "is empty: give it a value, or leave it out")
		case err != nil:
			faults.Add(a.Name, "is no attribute of an event: %v", err)
		}
	}
	return faults
}

// set are the attributes of Set, sorted.
func (s *HTTP) set() (attrs []bus.Attr) {
	for _, name := range sorted(s.Set) {
		attrs = append(attrs, bus.Attr{Name: name, Value: s.Set[name]})
	}
	return attrs
}

// pathFaults says why a door cannot have that path.
func pathFaults(p string) value.Faults {
	switch {
	case p == "":
		return value.Faults{{Key: "path", Msg: "is missing: give the path that events are POSTed to, such as /in/orders"}}
	case !strings.HasPrefix(p, "/") || path.Clean(p) != p:
		return value.Faults{{Key: "path", Msg: "is not a clean absolute path: write one such as /in/orders"}}
	case strings.ContainsAny(p, "{}?# \t"):
		return value.Faults{{Key: "path", Msg: "holds one of { } ? # or a space: write a plain path such as /in/orders"}}
	}
	return nil
}

// Open is Settings.Open. The path answers 503 until the source runs and after.
func (s *HTTP) Open(_ context.Context, env Env) (Source, error) {
	src := &httpSource{ready: make(chan struct{})}
	h := newHandler(&src.gate, HandlerOptions{Limits: s.Limits, Observe: env.Observe, Set: s.set(), Await: env.Await})
	var door http.Handler = h
	if !s.Auth.IsZero() {
		src.callers = access.NewChecker(s.Auth, "sources."+env.Name+".http.auth", access.Publish)
		door = h.guard(src.callers, h)
	}
	if err := env.Handle(Door{Path: s.Path, Handler: s.Handshake.before(door), Verifies: !s.Auth.IsZero()}); err != nil {
		return nil, err
	}
	return src, nil
}

type httpSource struct {
	gate    gate
	ready   chan struct{}
	running sync.Once

	callers *access.Checker // nil when others check
	taken   *once           // of a webhook, nil when repetitions are taken
}

// Follow is Follower.Follow.
func (s *httpSource) Follow(before Source) {
	old, ok := before.(*httpSource)
	if !ok {
		return
	}
	if s.callers != nil && old.callers != nil {
		s.callers.Follow(old.callers)
	}
	if s.taken != nil && old.taken != nil && s.taken.age == old.taken.age {
		s.taken = old.taken
	}
}

// Ready is Readier.Ready.
func (s *httpSource) Ready() <-chan struct{} { return s.ready }

// Run is Source.Run. It is over once every event that was taken has its answer
// from the bus; clients that still send are refused when they are done.
func (s *httpSource) Run(ctx context.Context, pub bus.Publisher) error {
	s.gate.open(pub)
	s.running.Do(func() { close(s.ready) })
	<-ctx.Done()
	s.gate.close()
	return nil
}

// gate is a Publisher that can be opened and closed: closing waits for the calls
// that are through.
type gate struct {
	mu      sync.RWMutex
	pub     bus.Publisher // nil while the gate is closed
	through sync.WaitGroup
}

func (g *gate) open(pub bus.Publisher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pub = pub
}

func (g *gate) close() {
	g.open(nil)
	g.through.Wait()
}

// enter gives the Publisher behind the gate, or nil. Who gets one calls
// through.Done.
func (g *gate) enter() bus.Publisher {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.pub != nil {
		g.through.Add(1)
	}
	return g.pub
}

// errResting is the answer of a closed gate.
var errResting = fmt.Errorf("%w: the source is paused or is being started", bus.ErrClosed)

// Publish is bus.Publisher.
func (g *gate) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	pub := g.enter()
	if pub == nil {
		results := make([]bus.Result, len(events))
		for i := range results {
			results[i].Err = errResting
		}
		return results, errResting
	}
	defer g.through.Done()
	return pub.Publish(ctx, events...)
}
