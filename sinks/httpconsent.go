package sinks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"sluice/config/value"
)

// HTTPConsent makes the sink ask whether it may deliver, before it does: the abuse
// protection of CloudEvents' HTTP 1.1 Web Hooks, section 4.
type HTTPConsent struct {
	Origin string         `yaml:"origin" doc:"Who sends, as a host name such as events.example.com. It goes with each delivery as WebHook-Request-Origin."`
	Rate   value.Rate     `yaml:"rate" doc:"How many requests the far side is asked to allow, such as 120/m. No more are made, or fewer if it allows fewer."`
	Every  value.Duration `yaml:"every" doc:"How long consent is good for. It is asked for again after that, and after a lost connection. 1h when left out."`
}

func (c *HTTPConsent) validate() value.Faults {
	var faults value.Faults
	if c == nil {
		return nil
	}
	if c.Origin == "" || !isToken(c.Origin) || strings.ContainsAny(c.Origin, "/:,*") {
		faults.Add("origin", "must be a host name without a scheme, a port and a path, such as events.example.com")
	}
	if !c.Rate.Unlimited() && c.perMinute() < 1 {
		faults.Add("rate", "is less than one in a minute, which the protocol cannot say")
	}
	if c.Every < 0 {
		faults.Add("every", "is negative: write a time such as 1h, or leave it out")
	}
	return faults
}

// perMinute is the rate as the protocol has it; 0 is no limit.
func (c *HTTPConsent) perMinute() int64 {
	if c.Rate.Unlimited() {
		return 0
	}
	return int64(min(math.Floor(c.Rate.PerSecond()*60+1e-9), math.MaxInt32))
}

const (
	headerOrigin      = "Webhook-Request-Origin"
	headerRate        = "Webhook-Request-Rate"
	headerAllowed     = "Webhook-Allowed-Origin"
	headerAllowedRate = "Webhook-Allowed-Rate"

	consentTimeout = 10 * time.Second
	consentPause   = 2 * time.Second // how long a refusal stands for attempts that come meanwhile
	consentLife    = time.Hour
)

// consent is the far side's word that it takes deliveries.
type consent struct {
	settings HTTPConsent
	ask      question
	given    shared[*given]
	limit    *rate.Limiter // lives on from one word to the next
}

// question asks by OPTIONS, with a header besides the sink's own.
type question = func(ctx context.Context, header http.Header) (status int, answer http.Header, err error)

// given is one such word.
type given struct{ perMinute int64 } // 0: no limit

func newConsent(s *HTTPConsent, ask question) *consent {
	if s == nil {
		return nil
	}
	c := &consent{settings: *s, ask: ask, limit: rate.NewLimiter(rate.Inf, 1)}
	c.given = shared[*given]{fetch: c.fetch, timeout: consentTimeout, pause: consentPause}
	return c
}

// obtain waits until a request may be made.
func (c *consent) obtain(ctx context.Context) (*given, error) {
	g, err := c.given.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for consent to deliver: %w", err)
	}
	return g, c.wait(ctx, g)
}

// wait keeps to the rate. When that would take most of an attempt's time, the
// delivery comes back later: as after a 429, which makes the lane slower and says
// nothing against the far side.
func (c *consent) wait(ctx context.Context, g *given) error {
	place := c.limit.Reserve()
	delay := place.Delay()
	if delay == 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && delay > time.Until(deadline)/2 {
		place.Cancel()
		err := fmt.Errorf("held back: the far side allows %d requests a minute", g.perMinute)
		return RetryAfter(&Error{Err: err, Status: http.StatusTooManyRequests}, delay)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		place.Cancel()
		return fmt.Errorf("waiting for a place in the rate that the far side allows: %w", context.Cause(ctx))
	}
}

// fetch asks.
func (c *consent) fetch(ctx context.Context) (*given, time.Duration, error) {
	header := http.Header{headerOrigin: {c.settings.Origin}}
	wanted := c.settings.perMinute()
	if wanted > 0 {
		header[headerRate] = []string{strconv.FormatInt(wanted, 10)}
	}
	status, answer, err := c.ask(ctx, header)
	if err != nil {
		return nil, 0, err
	}
	g, err := c.read(status, answer)
	if err != nil {
		return nil, 0, err
	}
	c.limit.SetLimit(rate.Inf)
	if g.perMinute > 0 {
		c.limit.SetLimit(rate.Limit(float64(g.perMinute) / 60))
	}
	life := time.Duration(c.settings.Every)
	if life == 0 {
		life = consentLife
	}
	return g, life, nil
}

// read takes the answer for a yes or a no.
func (c *consent) read(status int, answer http.Header) (*given, error) {
	switch {
	case status == http.StatusGone:
		return nil, Answered(status, nil)
	case status < 200 || status >= 300:
		return nil, asked(fmt.Errorf("the far side answered %d to OPTIONS, and gives no consent", status), answer, time.Now())
	}
	origin := answer.Get(headerAllowed)
	if origin != "*" && !strings.EqualFold(origin, c.settings.Origin) {
		return nil, fmt.Errorf("the far side gives no consent: the answer to OPTIONS has no WebHook-Allowed-Origin: %s; let it allow this origin, or leave out validate", c.settings.Origin)
	}
	g := &given{c.settings.perMinute()}
	if text := strings.TrimSpace(answer.Get(headerAllowedRate)); text != "" && text != "*" {
		allowed, err := strconv.ParseInt(text, 10, 64)
		if err != nil || allowed < 1 {
			return nil, errors.New("the far side gives no consent that can be read: WebHook-Allowed-Rate is neither a number above 0 nor *")
		}
		if g.perMinute == 0 || allowed < g.perMinute {
			g.perMinute = allowed
		}
	}
	return g, nil
}
