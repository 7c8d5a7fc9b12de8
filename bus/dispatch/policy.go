package dispatch

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

// Verdict is what becomes of a delivery after an attempt. From Rejected to
// Untransformed they end in a dead letter and double as its reason: a closed set.
type Verdict int

// The verdicts.
const (
	Delivered         Verdict = iota // the sink has it
	Again                            // another attempt is due
	Rejected                         // the sink said that it will never take it
	Gone                             // the sink said that it exists no more: it is disabled too
	AttemptsExhausted                // the last attempt that the policy allows has failed
	Expired                          // the next attempt would come after the policy's max age
	Untransformed                    // the rule's transform has no result for the event
	Leased                           // the sink has begun, and will say how it ended
	Discarded                        // the config says that it is not wanted any more
	Looped                           // the sink's reply came through too many sinks
	Malformed                        // what a source received cannot become an event
)

func (v Verdict) String() string {
	switch v {
	case Delivered:
		return "delivered"
	case Again:
		return "retry"
	case Rejected:
		return "rejected"
	case Gone:
		return "gone"
	case AttemptsExhausted:
		return "attempts_exhausted"
	case Expired:
		return "expired"
	case Untransformed:
		return "transform"
	case Leased:
		return "leased"
	case Discarded:
		return "discarded"
	case Looped:
		return "loop"
	case Malformed:
		return "malformed"
	}
	return "unknown"
}

// DeadLetterReasons is the closed set of reasons a dead letter can have.
func DeadLetterReasons() []string {
	return []string{Rejected.String(), Gone.String(), AttemptsExhausted.String(), Expired.String(), Untransformed.String(), Looped.String(), Malformed.String()}
}

// verdictNames are the verdicts that a config may give to a status.
var verdictNames = map[string]Verdict{"retry": Again, "permanent": Rejected, "delivered": Delivered}

// maxRetryAfter caps what a far side can ask for by Retry-After.
const maxRetryAfter = time.Hour

// MaxDelay is how far a consumer, or a function by name, can put off a delivery.
const MaxDelay = 12 * time.Hour

// authDelays is the slow class of 401 and 403: a token may be rotating, but
// hammering with a wrong one helps nobody. Jitter makes them longer, by no more than
// one part in authSpread: there are only three attempts, and a token that takes
// minutes to rotate must not find them used up in the first.
var authDelays = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

const authSpread = 10

// presets fill in what a Retry does not give. The figures of eventbridge are
// AWS's defaults (24 h, 185 attempts); those of standard-webhooks are the
// schedule that the Standard Webhooks specification recommends.
var presets = map[string]Retry{
	"default":     {MaxAge: hours(24), Initial: seconds(1), Max: seconds(600), Multiplier: 2, Jitter: "full"},
	"eventbridge": {MaxAttempts: 185, MaxAge: hours(24), Initial: seconds(1), Max: seconds(600), Multiplier: 2, Jitter: "full"},
	"fast":        {MaxAttempts: 5, MaxAge: seconds(300), Initial: value.Duration(200 * time.Millisecond), Max: seconds(10), Multiplier: 2, Jitter: "full"},
	"standard-webhooks": {Jitter: "equal", Schedule: []value.Duration{
		seconds(5), seconds(5 * 60), seconds(30 * 60), hours(2), hours(5), hours(10), hours(14), hours(20), hours(24)}},
	"none": {MaxAttempts: 1},
}

func seconds(n int) value.Duration { return value.Duration(time.Duration(n) * time.Second) }
func hours(n int) value.Duration   { return value.Duration(time.Duration(n) * time.Hour) }

func presetNames() string {
	return strings.Join(slices.Sorted(maps.Keys(presets)), ", ")
}

// Policy decides what happens after an attempt. It is pure: all it knows is what
// Next is told, but for Jitter.
type Policy struct {
	MaxAttempts int             // 0: no limit
	MaxAge      time.Duration   // 0: no limit
	Schedule    []time.Duration // when set, the delays one by one
	Initial     time.Duration
	Max         time.Duration
	Multiplier  float64
	Grace       time.Duration   // how long after the first attempt a 404 is retried
	Verdicts    map[int]Verdict // overrides by status
	// Jitter maps a delay to the one that is used; nil changes nothing.
	Jitter func(time.Duration) time.Duration
}

// NewPolicy makes the policy of a sink's options. random gives numbers in [0, 1).
func NewPolicy(o Options, random func() float64) Policy {
	r := o.Retry.withPreset()
	p := Policy{
		MaxAttempts: r.MaxAttempts,
		MaxAge:      time.Duration(r.MaxAge),
		Initial:     time.Duration(r.Initial),
		Max:         time.Duration(r.Max),
		Multiplier:  r.Multiplier,
		Grace:       time.Duration(o.StartupGrace),
		Verdicts:    map[int]Verdict{},
		Jitter:      jitter(r.Jitter, random),
	}
	for _, d := range r.Schedule {
		p.Schedule = append(p.Schedule, time.Duration(d))
	}
	for status, name := range o.Verdicts {
		p.Verdicts[status] = verdictNames[name]
	}
	return p
}

func (r Retry) withPreset() Retry {
	base := presets[r.Preset]
	if r.Schedule == nil && (r.Initial > 0 || r.Max > 0 || r.Multiplier > 0) {
		base.Schedule = nil // the delays given replace those of the preset
	}
	set(&base.MaxAttempts, r.MaxAttempts)
	set(&base.MaxAge, r.MaxAge)
	set(&base.Initial, r.Initial)
	set(&base.Max, r.Max)
	set(&base.Multiplier, r.Multiplier)
	set(&base.Jitter, r.Jitter)
	if r.Schedule != nil {
		base.Schedule = r.Schedule
	}
	set(&base.Multiplier, max(base.Multiplier, 1))
	set(&base.Max, max(base.Max, base.Initial))
	return base
}

// set replaces *to by v unless v says nothing.
func set[T comparable](to *T, v T) {
	var nothing T
	if v != nothing {
		*to = v
	}
}

func jitter(kind string, random func() float64) func(time.Duration) time.Duration {
	switch kind {
	case "full":
		return func(d time.Duration) time.Duration { return time.Duration(random() * float64(d)) }
	case "equal":
		return func(d time.Duration) time.Duration { return d/2 + time.Duration(random()*float64(d)/2) }
	}
	return nil
}

// Next decides after attempt (1 is the first) of a delivery whose event was
// accepted age ago has ended with err. past are the attempts before it, as far as
// they are known, and since is how long ago the first attempt ended. after is how
// long to wait when the verdict is Again.
func (p Policy) Next(attempt int, past []Attempt, age, since time.Duration, err error) (after time.Duration, verdict Verdict) {
	if err == nil {
		return 0, Delivered
	}
	var unshaped *shapeError
	if errors.As(err, &unshaped) {
		return 0, Untransformed
	}
	if errors.Is(err, errLoop) {
		return 0, Looped
	}
	if lease := (*leaseTaken)(nil); errors.As(err, &lease) {
		return lease.Duration, Leased
	}
	var e *sinks.Error
	if !errors.As(err, &e) {
		e = &sinks.Error{Err: err}
	}
	verdict = p.judge(since, e)
	if verdict != Again {
		return 0, verdict
	}
	delay, ok := p.delay(attempt, past, e.Status)
	if !ok || p.MaxAttempts > 0 && attempt >= p.MaxAttempts {
		return 0, AttemptsExhausted
	}
	switch {
	case p.Jitter == nil:
	case isAuth(e.Status):
		delay += p.Jitter(delay / authSpread)
	default:
		delay = p.Jitter(delay)
	}
	delay = max(delay, min(e.RetryAfter, maxRetryAfter), min(e.NotBefore, MaxDelay))
	if p.MaxAge > 0 && age+delay > p.MaxAge {
		return 0, Expired
	}
	return delay, Again
}

// judge is the verdict of one failure by itself: the table of README.md, section
// "What an answer means". 408, 409, 425, 429, 5xx and everything without a
// status are worth another attempt.
func (p Policy) judge(since time.Duration, e *sinks.Error) Verdict {
	if v, ok := p.Verdicts[e.Status]; ok {
		return v
	}
	if e.Permanent {
		return Rejected
	}
	switch s := e.Status; {
	case s == 410:
		return Gone
	case s == 404:
		if since < p.Grace {
			return Again
		}
		return Rejected
	case s == 401, s == 403, s == 408, s == 409, s == 425, s == 429:
		return Again
	case s == 501, s == 505, s >= 200 && s < 500:
		return Rejected
	}
	return Again
}

// delay is how long to wait after a failed attempt, before jitter; not ok means
// that there is no further attempt. Each class counts its own failures: a secret
// that rotates late in an outage finds all of its attempts, and what fails after
// that all that are left of the others.
func (p Policy) delay(attempt int, past []Attempt, status int) (d time.Duration, ok bool) {
	if isAuth(status) {
		inARow := 0
		for inARow < len(past) && isAuth(past[len(past)-1-inARow].Status) {
			inARow++
		}
		if inARow >= len(authDelays) {
			return 0, false
		}
		return authDelays[inARow], true
	}
	for _, a := range past {
		if isAuth(a.Status) {
			attempt--
		}
	}
	if p.Schedule != nil {
		if attempt > len(p.Schedule) {
			return 0, false
		}
		return p.Schedule[attempt-1], true
	}
	grown := float64(p.Initial) * math.Pow(p.Multiplier, float64(attempt-1))
	return time.Duration(min(grown, float64(p.Max))), true
}

// isAuth tells the statuses of the slow class.
func isAuth(status int) bool { return status == 401 || status == 403 }
