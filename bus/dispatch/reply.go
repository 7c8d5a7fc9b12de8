package dispatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/bus"
	"sluice/sinks"
)

// What a sink answered beside yes is put onto the bus before its delivery counts
// as made: a crash in between calls the sink again, and loses no reply.

// The extension attributes of replies.
const (
	// HopsAttribute counts how many sinks an event came through by their replies.
	HopsAttribute = sinks.HopsAttribute
	// CauseAttribute is the id of the event that the reply answers.
	CauseAttribute = "causationid"
	// CorrelationAttribute is the id of the event that began it all.
	CorrelationAttribute = "correlationid"
)

// MaxHops is how many sinks an event may come through by their replies: beyond it
// is a loop.
const MaxHops = sinks.MaxHops

// ReplySource is the label of replies among the sources. No source can be called so.
const ReplySource = "(reply)"

// What the options say of the answers of a sink.
const (
	RepliesPublished = "publish"
	RepliesIgnored   = "ignore"
)

// errLoop is a reply that came through too many sinks.
var errLoop = sinks.ErrLoop

// ask is what an attempt wants of the answer.
func (l *lane) ask(c *laneConf, d *delivery) sinks.Ask {
	ask := sinks.Ask{Events: c.options.Replies != RepliesIgnored, Body: c.options.OnSuccess != ""}
	if c.options.Lease > 0 {
		ask.Lease = &sinks.Lease{URL: l.d.leaseURL(d.id), Token: l.d.leaseToken(d.id, d.tried()+1)}
	}
	return ask
}

// acceptAnswer does with an answer what is to be done before the delivery counts as
// made. An error makes it a failed one.
func (l *lane) acceptAnswer(conf *laneConf, d *delivery, a *sinks.Answer, took time.Duration) error {
	if err := l.acceptEvents(conf, d, a); err != nil {
		return err
	}
	if conf.options.OnSuccess == "" || isReport(d.rule) {
		return nil
	}
	at := Attempt{At: time.Now().Add(-took), Duration: took, Status: a.Status, Class: Class(nil)}
	if err := l.tell(conf, d, conf.options.OnSuccess, succeeded, at, "", a); err != nil {
		return fmt.Errorf("the sink took the event; the report for on_success could not be stored: %w", err)
	}
	return nil
}

// acceptEvents publishes the events of an answer, be it the end of a job or a lease
// for one.
func (l *lane) acceptEvents(conf *laneConf, d *delivery, a *sinks.Answer) error {
	if len(a.Events) == 0 || conf.options.Replies == RepliesIgnored {
		return nil
	}
	return l.publishReplies(conf, d, a.Events)
}

// publishReplies stores the events of an answer. The sink did its work: when they
// cannot be stored it has to do it again.
func (l *lane) publishReplies(conf *laneConf, d *delivery, events []bus.Event) error {
	hops := sinks.Hops(d.event) + 1
	if hops > MaxHops {
		e := events[0]
		return fmt.Errorf("%w: the answer, an event %q of type %q, would come through more than %d sinks: "+
			"look at which rules send it where it came from", errLoop, e.ID(), e.Type(), MaxHops)
	}
	correlation := correlationOf(d.event)
	out := make([]bus.Event, len(events))
	for i, e := range events {
		attrs := []bus.Attr{{Name: HopsAttribute, Value: strconv.Itoa(hops)}, {Name: CauseAttribute, Value: d.event.ID()}}
		if e.Get(CorrelationAttribute) == "" {
			attrs = append(attrs, bus.Attr{Name: CorrelationAttribute, Value: correlation})
		}
		var err error
		if out[i], err = bus.Stamp(e, time.Now()).With(attrs...); err != nil {
			return sinks.Permanent(fmt.Errorf("the sink's reply: %w", err))
		}
	}
	ctx, cancel := context.WithTimeout(l.d.attempts, time.Duration(conf.options.Timeout))
	defer cancel()
	results, err := l.d.replies.Publish(ctx, out...)
	for _, r := range results {
		if err == nil {
			err = r.Err
		}
	}
	if err != nil {
		return fmt.Errorf("the sink took the event and replied; the reply could not be stored: %w", err)
	}
	l.d.history.replied(d, out)
	l.d.awaits.answer(d.event, out[0])
	return nil
}

// correlationOf is the id of the event that began it all.
func correlationOf(e bus.Event) string {
	if id := e.Get(CorrelationAttribute); id != "" {
		return id
	}
	return e.ID()
}

// The types of reports.
const (
	TypeSucceeded = "sluice.delivery.succeeded"
	TypeFailed    = "sluice.delivery.failed"
)

// report is the kind of a report: the type of its event, and the rule that it is
// delivered under.
type report struct{ eventType, rule string }

var (
	succeeded = report{TypeSucceeded, "(on_success)"}
	failed    = report{TypeFailed, "(on_failure)"}
)

// isReport tells whether a delivery is a report. Of that nothing is reported.
func isReport(rule string) bool { return rule == succeeded.rule || rule == failed.rule }

// reported is the data of a report.
type reported struct {
	Sink     string          `json:"sink"`
	Rule     string          `json:"rule"`
	Delivery string          `json:"delivery_id"`
	Reason   string          `json:"reason,omitempty"`
	Attempts int             `json:"attempts"`
	Last     Attempt         `json:"last_attempt"`
	Answer   *reportedAnswer `json:"answer,omitempty"`
	Event    json.RawMessage `json:"event"`
}

type reportedAnswer struct {
	Status      int             `json:"status,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
	JSON        json.RawMessage `json:"json,omitempty"` // a body that is JSON
	Text        string          `json:"text,omitempty"` // or text
	Base64      string          `json:"base64,omitempty"`
}

// tell makes a report durable for the sink that wants it.
func (l *lane) tell(conf *laneConf, d *delivery, to string, what report, last Attempt, reason string, a *sinks.Answer) error {
	one, err := l.newReport(d, to, what, last, reason, a)
	if err != nil {
		return err
	}
	return l.send(conf, one)
}

// report tells the sink that wants to hear of them about deliveries that were given up.
// The dead letter says it all, a report is on top: without one, the log says so.
func (l *lane) report(conf *laneConf, dead []death) {
	to := conf.options.OnFailure
	var told []*delivery
	var all []outgoing
	fail := func(d *delivery, err error) {
		l.log.Error("cannot report a dead letter to the sink of on_failure", "event_id", d.event.ID(), "rule", d.rule, "to", to, "err", err)
	}
	for _, one := range dead {
		if to == "" || isReport(one.d.rule) {
			continue
		}
		o, err := l.newReport(one.d, to, failed, one.last, one.why.String(), nil)
		if err != nil {
			fail(one.d, err)
			continue
		}
		told, all = append(told, one.d), append(all, o)
	}
	if len(all) == 0 {
		return
	}
	if err := l.send(conf, all...); err != nil {
		for _, d := range told {
			fail(d, err)
		}
	}
}

// send makes reports durable.
func (l *lane) send(conf *laneConf, all ...outgoing) error {
	ctx, cancel := context.WithTimeout(l.d.attempts, time.Duration(conf.options.Timeout))
	defer cancel()
	return store(ctx, all, fromReport)
}

// newReport is a report on its way to the sink that wants it.
func (l *lane) newReport(d *delivery, to string, what report, last Attempt, reason string, a *sinks.Answer) (outgoing, error) {
	target := l.d.laneNamed(to)
	if target == nil || !target.configured() {
		return outgoing{}, fmt.Errorf("there is no sink %q any more", to)
	}
	data, err := json.Marshal(reported{
		Sink: l.name, Rule: d.rule, Delivery: d.id, Reason: reason, Attempts: d.tried(), Last: last,
		Answer: reportAnswer(a), Event: d.event.AppendJSON(nil),
	})
	if err != nil {
		return outgoing{}, err
	}
	is := reportIdentity(l.name, d.id, what)
	// A sink may reply to a report: the hops go on, or a loop that leads through
	// reports would have no end.
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: is.id}, {Name: "source", Value: is.source}, {Name: "type", Value: what.eventType},
		{Name: "subject", Value: d.event.ID()}, {Name: "datacontenttype", Value: "application/json"},
		{Name: CauseAttribute, Value: d.event.ID()}, {Name: CorrelationAttribute, Value: correlationOf(d.event)},
		{Name: HopsAttribute, Value: strconv.Itoa(sinks.Hops(d.event))},
	}, data)
	if err != nil {
		return outgoing{}, err
	}
	e = bus.Stamp(e, time.Now())
	return outgoing{target, &delivery{
		event: e, id: deliveryID(e, what.rule, to, ""), rule: what.rule, sink: to, accepted: time.Now(),
	}}, nil
}

// reportIdentity is the identity of the report of a delivery.
func reportIdentity(sink, delivery string, what report) identity {
	return identity{"/sinks/" + sink, delivery + "-" + what.eventType}
}

func reportAnswer(a *sinks.Answer) *reportedAnswer {
	switch {
	case a == nil || a.Status == 0 && len(a.Body) == 0:
		return nil
	case json.Valid(a.Body):
		return &reportedAnswer{Status: a.Status, ContentType: a.ContentType, JSON: a.Body}
	case utf8.Valid(a.Body):
		return &reportedAnswer{Status: a.Status, ContentType: a.ContentType, Text: string(a.Body)}
	}
	return &reportedAnswer{Status: a.Status, ContentType: a.ContentType, Base64: base64.StdEncoding.EncodeToString(a.Body)}
}

// awaits are those who wait for the first reply to an event.
type awaits struct {
	mu   sync.Mutex
	all  map[identity][]chan bus.Event
	over bool // no reply can come any more
}

// identity is what makes an event one.
type identity struct{ source, id string }

func identityOf(e bus.Event) identity { return identity{e.Source(), e.ID()} }

// Await gives the first reply to an event that is published after the call. The
// channel is closed when none can come any more because the bus stops. Whoever waits
// calls stop.
func (d *Dispatcher) Await(e bus.Event) (reply <-chan bus.Event, stop func()) {
	return d.awaits.wait(identityOf(e))
}

func (a *awaits) wait(of identity) (<-chan bus.Event, func()) {
	c := make(chan bus.Event, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		close(c)
		return c, func() {}
	}
	if a.all == nil {
		a.all = map[identity][]chan bus.Event{}
	}
	a.all[of] = append(a.all[of], c)
	return c, func() { a.leave(of, c) }
}

func (a *awaits) leave(of identity, c chan bus.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.all[of][:0]
	for _, other := range a.all[of] {
		if other != c {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		delete(a.all, of)
	} else {
		a.all[of] = left
	}
}

// end lets nobody wait any more.
func (a *awaits) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, waiting := range a.all {
		for _, c := range waiting {
			close(c)
		}
	}
	a.all, a.over = nil, true
}

// answer hands a reply to those who wait for one to e.
func (a *awaits) answer(e, reply bus.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) == 0 {
		return
	}
	for _, c := range a.all[identityOf(e)] {
		select {
		case c <- reply:
		default: // it has the first
		}
	}
}
