// Package config loads the configuration: one YAML file, or a directory of them
// that count as one. It is strict, since a misspelt key that is ignored is an
// event that gets lost: every key, type, name and reference is checked, and all
// faults are reported at once, each with its place and what to write instead.
//
// It does not start anything: the tables of kinds are arguments, and Open of a
// source or sink is called by whoever runs it.
package config

import (
	"encoding/json"
	"slices"
	"time"

	"sluice/bus/dispatch"
	"sluice/config/access"
	"sluice/config/value"
	"sluice/rules"
	"sluice/sinks"
	"sluice/sources"
)

// Config is a configuration without faults. It prints no secret, whatever prints
// it.
type Config struct {
	Server        Server            `yaml:"server" doc:"The one listener: ingest, API, console, health and metrics."`
	Store         Store             `yaml:"store" doc:"Where events are kept, and for how long."`
	DeadLetters   DeadLetters       `yaml:"dead_letters" doc:"What becomes of deliveries that were given up."`
	Unmatched     []string          `yaml:"unmatched" doc:"Sinks for events that no rule matches."`
	Dedup         dispatch.Dedup    `yaml:"dedup" doc:"Makes a second publish of the same event do nothing for a while."`
	Subscriptions Subscriptions     `yaml:"subscriptions" doc:"What callers may subscribe at run time, beside the rules."`
	RemovedSinks  map[string]string `yaml:"removed_sinks" enum:"keep,dead_letter,drop" doc:"What becomes of the deliveries that wait for a sink that is no longer there, by its name."`

	Sources []Source `yaml:"-"` // in the order they were written, as the lists below
	Sinks   []Sink   `yaml:"-"`
	Rules   []Rule   `yaml:"-"`
	Tests   []Test   `yaml:"-"`

	Warnings Faults `yaml:"-"` // what does not stop the config from loading

	version string
	entries []string // what version sums up, sorted
}

// Subscriptions says what callers may subscribe at run time.
type Subscriptions struct {
	Max          int          `yaml:"max" doc:"The most subscriptions there may be; 0 for none at all."`
	PrivateSinks bool         `yaml:"private_sinks" doc:"Lets subscriptions deliver to all loopback and private addresses. Whoever may subscribe can then reach what this machine reaches."`
	Allow        []value.CIDR `yaml:"allow" doc:"Addresses that are not public and that subscriptions may deliver to all the same, such as 10.1.0.0/16. What counts is the address that a name leads to. Metadata services of clouds stay out of reach."`
}

// Validate finds what single values cannot show.
func (s Subscriptions) Validate() value.Faults {
	if s.Max < 0 {
		return value.Faults{{Key: "max", Msg: "is negative: write how many there may be, or 0 for none"}}
	}
	return nil
}

// Version names what the config says: 12 hex digits that stay the same when only
// comments, layout, the order of keys or the split into files change.
func (c *Config) Version() string { return c.version }

// SourceCertificates tells whether any source knows callers by client certificates.
func (c *Config) SourceCertificates() bool { return slices.ContainsFunc(c.Sources, Source.certified) }

func (s Source) certified() bool {
	known, ok := s.Settings.(sources.Certified)
	return ok && known.Certified()
}

// Source is one way in.
type Source struct {
	Name     string
	Kind     string
	Settings sources.Settings
	Pos      Pos
}

// Sink is one place that events are delivered to.
type Sink struct {
	Name     string
	Kind     string
	Settings sinks.Settings
	Options  dispatch.Options
	Pos      Pos
}

// Rule sends the events that match to sinks.
type Rule struct {
	Name        string               `yaml:"-"`
	Description string               `yaml:"description" doc:"What the rule is for."`
	Match       rules.Pattern        `yaml:"match" doc:"The pattern an event has to match, in the EventBridge pattern language."`
	Where       *rules.Where         `yaml:"where" doc:"A condition on the attributes beside the pattern: an expression in CloudEvents SQL, such as subject LIKE 'a%'. It is evaluated once the pattern matches; one without an answer counts as false."`
	To          []string             `yaml:"to" doc:"The sinks that get the events."`
	Transform   *rules.TransformSpec `yaml:"transform" doc:"What is sent in place of the event: a constant, or a template in the manner of EventBridge's input transformer."`
	Enabled     bool                 `yaml:"enabled" doc:"Write false to keep the rule but not to apply it."`
	Pos         Pos                  `yaml:"-"`

	transform *rules.Transform
}

// Route is the rule as the dispatcher wants it.
func (r *Rule) Route() dispatch.Route {
	return dispatch.Route{Name: r.Name, Pattern: r.Match, Where: r.Where, Transform: r.transform, To: r.To}
}

// Test is an event and the sinks it has to reach.
type Test struct {
	Name   string          `yaml:"name" doc:"What the test shows."`
	Event  json.RawMessage `yaml:"event" doc:"The event, as a CloudEvent in JSON."`
	Expect []string        `yaml:"expect" doc:"Every sink the event is sent to; [] for none."`
	Pos    Pos             `yaml:"-"`
}

// Server is the listener.
type Server struct {
	Listen            string         `yaml:"listen" doc:"Address and port. Other machines reach it only when this is no loopback address, which needs auth."`
	URL               value.URL      `yaml:"url" doc:"The address at which functions reach the bus, for what they are to call back: that of the listener when left out."`
	DrainTimeout      value.Duration `yaml:"drain_timeout" doc:"How long deliveries in flight may take to finish at the end."`
	ReadHeaderTimeout value.Duration `yaml:"read_header_timeout" doc:"How long a client may take to send the header of a request."`
	ReadTimeout       value.Duration `yaml:"read_timeout" doc:"How long a client may take to send a whole request."`
	Limits            Limits         `yaml:"limits" doc:"What is refused at the door."`
	Auth              access.Auth    `yaml:"auth" doc:"Who may call: a list of tokens, or none for everybody. Left out, everybody on this machine may, by the name localhost or an IP address."`
	TLS               TLS            `yaml:"tls" doc:"The certificate to serve with; plain HTTP when left out."`
	CORS              CORS           `yaml:"cors" doc:"Whose web pages may send events: nobody's when left out."`
}

// Limits are what the server takes. Those of one request have the keys that they
// have in an http source.
type Limits struct {
	EventBytes  value.Bytes    `yaml:"event" doc:"The size of one event."`
	BatchBytes  value.Bytes    `yaml:"batch" doc:"The size of a whole batch."`
	BatchEvents int            `yaml:"batch_events" doc:"How many events a batch may have."`
	BodyTimeout value.Duration `yaml:"body_timeout" doc:"How long a client may take to send its request."`
	Stall       value.Duration `yaml:"stall" doc:"How long a client may send nothing before min_rate counts."`
	MinRate     value.Bytes    `yaml:"min_rate" doc:"How much a client has to send in a second."`
	Connections int            `yaml:"connections" doc:"The most clients at a time."`
}

// Request are the limits of one request.
func (l Limits) Request() sources.Limits {
	return sources.Limits{
		Event: l.EventBytes, Batch: l.BatchBytes, BatchEvents: l.BatchEvents,
		BodyTimeout: l.BodyTimeout, Stall: l.Stall, MinRate: l.MinRate,
	}
}

func defaultLimits() Limits {
	d := sources.DefaultLimits()
	return Limits{d.Event, d.Batch, d.BatchEvents, d.BodyTimeout, d.Stall, d.MinRate, 4096}
}

// TLS are the files of a certificate.
type TLS struct {
	Cert string `yaml:"cert" doc:"File of the certificate chain, PEM."`
	Key  string `yaml:"key" doc:"File of the private key, PEM."`

	ClientCA string `yaml:"client_ca" doc:"File of the certificates, PEM, that sign those of the clients: every client needs one then, unless auth.certificates says who may do what with one, or a source has auth.certificates of its own and server.auth has tokens for the rest."`
}

// Enabled reports that the server speaks TLS.
func (t TLS) Enabled() bool { return t.Cert != "" }

// CORS says which web pages may send events from a browser: to / and /events and to
// the paths of sources, and to nothing else.
type CORS struct {
	Origins []string `yaml:"origins" doc:"The origins of the pages, such as https://shop.example.com, or * for all. They need a token like everybody else."`
}

// Store is the durable log.
type Store struct {
	Dir      string      `yaml:"dir" doc:"Directory of the data. One process at a time uses it."`
	Sync     Sync        `yaml:"sync" doc:"When an accepted event is forced to disk: always before the answer, or every so often (100ms), which a power loss can undo."`
	Retain   Retain      `yaml:"retain" doc:"How long settled events stay for replay; events that are not settled always stay."`
	MaxBytes value.Bytes `yaml:"max_bytes" doc:"The store never grows beyond this: publishers get 507 first. 0 for as large as the disk."`
}

// Retain says how long events are kept. 0 is without end.
type Retain struct {
	Age  value.Duration `yaml:"age" doc:"Older events are removed."`
	Size value.Bytes    `yaml:"size" doc:"The oldest events are removed beyond this size."`
}

// DeadLetters is the store of deliveries that were given up.
type DeadLetters struct {
	Retain value.Duration `yaml:"retain" doc:"Dead letters older than this are removed; 0 keeps them until somebody does."`
}

// defaults is the config of an empty file.
func defaults() *Config {
	return &Config{
		Server: Server{
			Listen:            "127.0.0.1:8484",
			DrainTimeout:      value.Duration(30 * time.Second),
			ReadHeaderTimeout: value.Duration(10 * time.Second),
			ReadTimeout:       value.Duration(time.Minute),
			Limits:            defaultLimits(),
		},
		Store: Store{
			Dir:    "./data",
			Sync:   Sync{},
			Retain: Retain{Age: value.Duration(72 * time.Hour), Size: 10 << 30},
		},
		DeadLetters:   DeadLetters{Retain: value.Duration(14 * 24 * time.Hour)},
		Subscriptions: Subscriptions{Max: 1000},
	}
}
