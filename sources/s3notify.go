package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"golang.org/x/time/rate"

	"sluice/bus"
	"sluice/config/value"
)

// How large one notification may be. SNS sends at most 256 KiB, in JSON in JSON.
const (
	s3MaxNotice = 4 << 20
	snsMaxBody  = 1 << 20
)

// s3Door takes the notifications of object stores. It answers 202 once every record
// is durable: as an event, or as a dead letter when it cannot be one, because the
// sender would send it again for ever.
type s3Door struct {
	*handler
	gate   *gate
	env    *Env
	flavor string
	tokens value.Secrets // of the senders; none when the listener itself checks them
	verify bool          // senders without a token have no other way to prove who they are
	sns    *snsDoor
	warn   rate.Sometimes // strangers must not be able to fill the log
}

func (d *s3Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodHead: // object stores ask whether somebody is there
		w.WriteHeader(d.probe())
	case http.MethodPost:
		d.post(w, r)
	default:
		w.Header().Set("Allow", http.MethodPost+", "+http.MethodHead)
		writeProblem(w, &problem{Status: http.StatusMethodNotAllowed, Detail: "send notifications with POST"})
	}
}

func (d *s3Door) probe() int {
	if d.gate.enter() == nil {
		return http.StatusServiceUnavailable
	}
	d.gate.through.Done()
	return http.StatusOK
}

func (d *s3Door) post(w http.ResponseWriter, r *http.Request) {
	in := d.incoming(w, r)
	if err := checkEncoding(r.Header); err != nil {
		d.refuse(w, badInput(err))
		return
	}
	known := d.authorized(r)
	// SNS signs its messages, unless it delivers them raw.
	signed := len(d.sns.topics) > 0 &&
		r.Header.Get("X-Amz-Sns-Message-Type") != "" && r.Header.Get("X-Amz-Sns-Rawdelivery") != "true"
	limit := int64(s3MaxNotice)
	switch {
	case !known && !signed:
		d.deny(w)
		return
	case !known:
		limit = snsMaxBody
	}
	body, err := in.read(limit)
	if err != nil {
		d.refuse(w, badInput(err))
		return
	}
	n := readNotice(body, d.flavor)
	if n.sns == nil && !known {
		d.deny(w)
		return
	}
	pub := d.gate.enter()
	if pub == nil {
		d.refuse(w, notTaken(r.Context(), bus.ErrClosed))
		return
	}
	defer d.gate.through.Done()
	if n.sns != nil {
		if n, err = d.open(r.Context(), n.sns); err != nil {
			d.refuseSNS(w, err)
			return
		}
	}
	d.take(w, r, pub, n)
}

// authorized tells whether the sender gave the token: as a bearer token, or as the
// password of basic authentication, which is what a URL can hold.
func (d *s3Door) authorized(r *http.Request) bool {
	if len(d.tokens) == 0 {
		return !d.verify
	}
	given := ""
	if scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		given = strings.TrimSpace(rest)
	} else if _, password, ok := r.BasicAuth(); ok {
		given = password
	}
	return given != "" && d.tokens.Contain(given)
}

func (d *s3Door) deny(w http.ResponseWriter) {
	p := &problem{Status: http.StatusUnauthorized, outcome: Denied,
		Detail: "the token is missing or wrong: send it as Authorization: Bearer <token>, or as the password in the URL; for SNS, name the topic in sns.topics"}
	if len(d.tokens) == 0 {
		p.Detail = "only signed messages of SNS are taken here: for others set auth.bearer"
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	d.refuse(w, p)
}

func (d *s3Door) refuseSNS(w http.ResponseWriter, err error) {
	p := &problem{Status: http.StatusServiceUnavailable, outcome: Unavailable, after: 1, Detail: err.Error()}
	if errors.Is(err, errDenied) {
		p.Status, p.outcome, p.after = http.StatusForbidden, Denied, 0
	}
	d.warn.Do(func() { d.env.Log.Warn("a message of SNS is not taken", "err", err) })
	d.refuse(w, p)
}

// open verifies an SNS message and reads what is in it. The confirmation of a
// subscription is answered.
func (d *s3Door) open(ctx context.Context, m *snsMessage) (notice, error) {
	if err := d.sns.verify(ctx, m); err != nil {
		return notice{}, err
	}
	if m.kind == snsSubscribe {
		if err := d.sns.confirm(ctx, m); err != nil {
			return notice{}, err
		}
		d.env.Log.Info("the subscription to an SNS topic is confirmed", "topic", m.topic)
	}
	if m.kind != snsNotification {
		return notice{}, nil
	}
	inner := []byte(m.fields["Message"])
	n := readNotice(inner, d.flavor)
	if n.sns != nil {
		return notice{bad: []badRecord{{inner, errors.New("the message of SNS holds another one")}}}, nil
	}
	return n, nil
}

// take makes all of a notification durable and answers.
func (d *s3Door) take(w http.ResponseWriter, r *http.Request, pub bus.Publisher, n notice) {
	taken, bad, err := d.store(r.Context(), pub, n)
	d.observe(Accepted, taken)
	for _, b := range bad {
		if err != nil {
			break
		}
		if err = d.env.Reject(r.Context(), b); err == nil {
			d.observe(Invalid, 1)
			d.env.Log.Warn("a record is no event and becomes a dead letter", slog.String("reason", b.Reason))
		}
	}
	if err != nil {
		d.refuse(w, notTaken(r.Context(), err))
		return
	}
	writeJSON(w, "application/json", http.StatusAccepted, fmt.Appendf(nil, `{"accepted":%d,"rejected":%d}`, taken, len(bad)))
}

// store publishes the events. What is not durable then is bad, or the error.
func (d *s3Door) store(ctx context.Context, pub bus.Publisher, n notice) (taken int, bad []Rejected, err error) {
	for _, b := range n.bad {
		bad = append(bad, b.rejected())
	}
	if len(n.events) == 0 {
		return 0, bad, nil
	}
	results, all := pub.Publish(ctx, n.events...)
	for i, e := range n.events {
		switch fault := faultOf(results, all, i); {
		case fault == nil:
			taken++
		case errors.Is(fault, bus.ErrTooLarge):
			bad = append(bad, tooLargeEvent(e))
		case err == nil:
			err = fault
		}
	}
	return taken, bad, err
}

// rejected is the dead letter of a record. Its id is a hash, so that a repetition has
// the same.
func (b badRecord) rejected() Rejected {
	sum := sha256.Sum256(b.raw)
	r := Rejected{ID: hex.EncodeToString(sum[:20]), Where: "notification", Reason: b.err.Error(), Data: b.raw}
	if bus.ValidJSON(b.raw) {
		r.ContentType = "application/json"
	}
	return r
}

// notTaken is the answer when not all of a notification is durable. It is 503
// whatever the cause: not every object store knows that 429 and 507 are worth
// another attempt.
func notTaken(ctx context.Context, err error) *problem {
	p := badStore(ctx, err)
	p.Status = http.StatusServiceUnavailable
	p.Detail = strings.ReplaceAll(p.Detail, "event", "notification")
	p.after = max(p.after, 1)
	return p
}
