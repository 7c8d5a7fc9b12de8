package sources

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"sluice/config/value"
)

// Webhook are the settings of the webhook source: any HTTP request of a sender that
// proves who it is becomes an event. webhookverify.go has the proofs, webhookmap.go
// makes the event, webhookdoor.go is the way of a request, webhookonce.go keeps
// repetitions out.
type Webhook struct {
	Path      string         `yaml:"path" doc:"The path that requests are POSTed to, such as /in/github."`
	Verify    *Verify        `yaml:"verify" doc:"How senders prove who they are: one of the keys below, or none, which lets everybody in. A secret may be a list while one takes the place of another."`
	Tolerance value.Duration `yaml:"tolerance" doc:"How far the time that a sender signs may be from ours, either way, and how long requests are remembered for repeats."`
	Repeats   string         `yaml:"repeats" enum:"once,strict,take" doc:"What becomes of a request that was taken within tolerance: once answers 2xx without a second event, going by the id and by a signature that holds a time; strict goes by every signature, which drops what a service says twice in the same words; take makes an event each time. A restart forgets what was taken: a request that comes again after it becomes an event with the same id, which dedup drops."`
	Event     EventMap       `yaml:"event" doc:"What the event is made of. The sender's own way when left out: see each key of verify."`
	Handshake *Handshake     `yaml:"handshake" doc:"The answer to a CloudEvents sender that asks first whether it may deliver; it is refused when left out."`
	Limits    BodyLimits     `yaml:"limits" doc:"What one request may hold and how long it may take."`
}

// BodyLimits are the Limits of a request with one event.
type BodyLimits struct {
	Event       value.Bytes    `yaml:"event" doc:"The size of the body."`
	BodyTimeout value.Duration `yaml:"body_timeout" doc:"How long a client may take to send its request."`
	Stall       value.Duration `yaml:"stall" doc:"How long a client may send nothing before min_rate counts."`
	MinRate     value.Bytes    `yaml:"min_rate" doc:"How much a client has to send in a second."`
}

// What repeats may be.
const (
	repeatsOnce   = "once"
	repeatsStrict = "strict"
	repeatsTake   = "take"
)

// NewWebhook returns the settings with their defaults.
func NewWebhook() *Webhook {
	d := DefaultLimits()
	return &Webhook{
		Tolerance: value.Duration(5 * time.Minute), Repeats: repeatsOnce,
		Limits: BodyLimits{d.Event, d.BodyTimeout, d.Stall, d.MinRate},
	}
}

// Validate is Settings.Validate.
func (s *Webhook) Validate() value.Faults {
	faults := pathFaults(s.Path)
	if s.Verify == nil {
		faults.Add("verify", "is missing: say how senders prove who they are, "+
			`such as verify: {github: "${env:GITHUB_SECRET}"}, or verify: none if everybody may send`)
	} else {
		faults = append(faults, s.Verify.validate().Under("verify")...)
	}
	if s.Tolerance <= 0 {
		faults.Add("tolerance", "must be more than 0: clocks are never the same; to take repetitions write repeats: take")
	}
	if s.Limits.Event < 0 {
		faults.Add("limits.event", "is negative: write a limit of at least 1, or leave it out")
	}
	faults = append(faults, s.Event.validate().Under("event")...)
	return append(faults, s.Handshake.validate().Under("handshake")...)
}

// Open is Settings.Open. The path answers 503 until the source runs and after.
func (s *Webhook) Open(_ context.Context, env Env) (Source, error) {
	const quiet = time.Minute
	src := &httpSource{ready: make(chan struct{})}
	scheme := s.Verify.scheme()
	limits := Limits{Event: s.Limits.Event, Batch: s.Limits.Event, BodyTimeout: s.Limits.BodyTimeout, Stall: s.Limits.Stall, MinRate: s.Limits.MinRate}
	door := &webhookDoor{
		handler: newHandler(&src.gate, HandlerOptions{Limits: limits, Observe: env.Observe}),
		source:  src, env: &env, scheme: scheme,
		tolerance: time.Duration(s.Tolerance), mapping: s.Event.compile(scheme.defaults),
		strict: s.Repeats == repeatsStrict, warn: rate.Sometimes{Interval: quiet},
	}
	if s.Repeats != repeatsTake {
		// What is signed for a time that is still to come is good for twice as long.
		src.taken = newOnce(2*door.tolerance, maxRemembered)
	}
	if err := env.Handle(Door{Path: s.Path, Handler: s.Handshake.before(door), Verifies: true}); err != nil {
		return nil, err
	}
	return src, nil
}
