package sources

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/time/rate"

	"sluice/bus"
)

// webhookDoor takes the requests of one webhook source. It reads the body, verifies
// it as it came, and answers once the event is durable:
//
//	202  {"id", "source", "status": "accepted" or "deduplicated", "position"}; Slack
//	     and Twilio get the empty answers that they expect
//	202  {"status": "dead_letter"} for what a service has signed and cannot be an
//	     event: it would not read what is wrong
//	401  the sender did not prove who it is; "header" says by what
//	4xx, 5xx  as of NewHandler
type webhookDoor struct {
	*handler
	source    *httpSource
	env       *Env
	scheme    scheme
	tolerance time.Duration
	mapping   *mapping
	strict    bool
	warn      rate.Sometimes
}

// hook is a request while it is looked at.
type hook struct {
	r    *http.Request
	body []byte
	now  time.Time

	form   url.Values   // once read: the fields of a form
	doc    gjson.Result // once read: the body as JSON
	parsed bool
}

func (d *webhookDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeProblem(w, &problem{Status: http.StatusMethodNotAllowed, Detail: "send webhooks with POST"})
		return
	}
	in := d.incoming(w, r)
	if err := checkEncoding(r.Header); err != nil {
		d.refuse(w, badInput(err))
		return
	}
	body, err := in.read(int64(d.limits.Event))
	if err != nil {
		d.refuse(w, badInput(err))
		return
	}
	h := &hook{r: r, body: body, now: d.now()}
	proven, err := d.scheme.verify(h)
	if err == nil && !proven.at.IsZero() {
		err = inTime(proven, h.now, d.tolerance)
	}
	if err != nil {
		d.deny(w, r, err)
		return
	}
	if challenge, ok := d.scheme.challenge(h); ok {
		writeJSON(w, "application/json", http.StatusOK, challenge)
		return
	}
	d.take(w, h, proven)
}

// deny answers a sender that did not prove who it is. Neither the answer nor the
// log holds what was expected, or any of the body.
func (d *webhookDoor) deny(w http.ResponseWriter, r *http.Request, err error) {
	p := &problem{Status: http.StatusUnauthorized, Detail: err.Error(), outcome: Denied}
	var bad *unverified
	if errors.As(err, &bad) {
		p.Header = bad.header
	}
	d.warn.Do(func() {
		d.env.Log.Warn("a request is not verified; more of these are only counted for a minute", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
	})
	w.Header().Set("WWW-Authenticate", d.scheme.wants)
	d.refuse(w, p)
}

// inTime checks the time that was signed, either way: clocks differ.
func inTime(s proof, now time.Time, tolerance time.Duration) error {
	switch age := now.Sub(s.at); {
	case age > tolerance:
		return &unverified{s.clock, "is older than the tolerance of " + tolerance.String() + ": send the request anew, and check the clocks"}
	case age < -tolerance:
		return &unverified{s.clock, "lies further ahead than the tolerance of " + tolerance.String() + ": check the clocks"}
	}
	return nil
}

// take makes the event of a verified request and answers when it is durable.
func (d *webhookDoor) take(w http.ResponseWriter, h *hook, s proof) {
	made, err := d.mapping.event(h)
	switch {
	case err != nil && d.scheme.service && d.env.Reject != nil:
		d.reject(w, h, err)
		return
	case err != nil:
		d.refuse(w, badInput(err))
		return
	}
	e := bus.Stamp(made.event, h.now)
	keys := d.keys(made, s)
	if len(keys) == 0 {
		d.publishOne(w, h.r, e)
		return
	}
	for {
		c, own := d.source.taken.claim(h.now, keys)
		if own {
			// A panic must not leave the claim open.
			taken := false
			defer func() { d.source.taken.settle(c, keys, taken) }()
			taken = d.publishOne(w, h.r, e)
			return
		}
		select {
		case <-c.done:
			if c.taken {
				d.repeated(w, e)
				return
			}
		case <-h.r.Context().Done():
			d.refuse(w, badStore(h.r.Context(), h.r.Context().Err()))
			return
		}
	}
}

// keys are what a repetition of the request would have too.
func (d *webhookDoor) keys(m mapped, s proof) (keys []onceKey) {
	if d.source.taken == nil {
		return nil
	}
	if !m.digest {
		keys = append(keys, keyOf("id", m.event.Source(), m.event.ID()))
	}
	// Without a time in it a signature is the same whenever a service says the same
	// again: GitHub does when somebody is added to a team, removed and added again.
	if s.text != "" && (d.strict || !s.at.IsZero()) {
		keys = append(keys, keyOf("signature", s.text))
	}
	return keys
}

// publishOne stores the event and answers. It tells whether the event is durable.
func (d *webhookDoor) publishOne(w http.ResponseWriter, r *http.Request, e bus.Event) bool {
	result, p := d.store(r.Context(), e)
	if p != nil {
		d.refuse(w, p)
		return false
	}
	d.observe(Accepted, 1)
	d.answer(w, e, result)
	return true
}

// repeated answers a request that was taken before.
func (d *webhookDoor) repeated(w http.ResponseWriter, e bus.Event) {
	d.observe(Repeated, 1)
	if d.scheme.answer != nil {
		d.scheme.answer(w)
		return
	}
	body, err := json.Marshal(map[string]string{"id": e.ID(), "source": e.Source(), "status": "deduplicated"})
	if err != nil { // texts always have a JSON form
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	writeJSON(w, "application/json", http.StatusAccepted, body)
}

func (d *webhookDoor) answer(w http.ResponseWriter, e bus.Event, result bus.Result) {
	if d.scheme.answer != nil {
		d.scheme.answer(w)
		return
	}
	writeJSON(w, "application/json", http.StatusAccepted, appendAccepted(nil, e, result))
}

// reject makes a dead letter of what was signed and cannot be an event.
func (d *webhookDoor) reject(w http.ResponseWriter, h *hook, cause error) {
	if d.source.gate.enter() == nil {
		d.refuse(w, badStore(h.r.Context(), bus.ErrClosed))
		return
	}
	defer d.source.gate.through.Done()
	err := d.env.Reject(h.r.Context(), Rejected{
		ID: h.digest(), Where: h.r.URL.Path, Reason: cause.Error(), ContentType: h.r.Header.Get("Content-Type"), Data: h.body,
	})
	if err != nil {
		d.refuse(w, badStore(h.r.Context(), err))
		return
	}
	d.observe(Invalid, 1)
	d.warn.Do(func() {
		d.env.Log.Warn("a request cannot be an event and becomes a dead letter", "path", h.r.URL.Path, "err", cause)
	})
	writeJSON(w, "application/json", http.StatusAccepted, []byte(`{"status":"dead_letter"}`))
}

// fields are the fields of a form; none when the body is no form.
func (h *hook) fields() url.Values {
	h.parse()
	return h.form
}

// json is the body as JSON: also that in the field payload of a form, which is how
// some senders do it. It does not exist when there is none.
func (h *hook) json() gjson.Result {
	h.parse()
	return h.doc
}

func (h *hook) parse() {
	if h.parsed {
		return
	}
	h.parsed = true
	text := h.body
	if isForm(h.r.Header) {
		// A part that is not understood is left out: the body itself is kept.
		h.form, _ = url.ParseQuery(string(h.body))
		text = []byte(h.form.Get("payload"))
	}
	if len(bytes.TrimSpace(text)) > 0 && bus.ValidJSON(text) {
		h.doc = gjson.ParseBytes(text)
	}
}

func isForm(h http.Header) bool {
	mediaType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "application/x-www-form-urlencoded")
}
