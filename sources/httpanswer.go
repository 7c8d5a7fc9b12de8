package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/tidwall/gjson"

	"sluice/bus"
)

// problem is the answer to what was not taken (RFC 9457).
type problem struct {
	Type      string `json:"type"` // about:blank: the status says it all
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Attribute string `json:"attribute,omitempty"` // the attribute that is wrong, or "data"
	Header    string `json:"header,omitempty"`    // the header that does not prove who sends

	// Of a batch of which nothing was taken.
	Rejected int    `json:"rejected,omitempty"`
	Events   []item `json:"events,omitempty"`

	outcome Outcome
	id      string // of the event, when it is known
	after   int    // seconds for Retry-After; 0 for none
	hangUp  bool   // the rest of the request cannot be read
}

// retryable tells whether sending the same again can help.
func (p *problem) retryable() bool { return p.Status >= 500 || p.Status == http.StatusTooManyRequests }

// item is what became of one event of a batch.
type item struct {
	Index        int    `json:"index"`
	ID           string `json:"id,omitempty"`
	OK           bool   `json:"ok"`
	Position     string `json:"position,omitempty"`
	Deduplicated bool   `json:"deduplicated,omitempty"`
	Status       int    `json:"status,omitempty"`
	Error        string `json:"error,omitempty"`
	Attribute    string `json:"attribute,omitempty"`

	outcome Outcome
}

// appendJSON appends what encoding/json makes of the item.
func (it *item) appendJSON(dst []byte) []byte {
	dst = strconv.AppendInt(append(dst, `{"index":`...), int64(it.Index), 10)
	text := func(name, value string) {
		if value != "" {
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = gjson.AppendJSONString(dst, value)
		}
	}
	text("id", it.ID)
	dst = strconv.AppendBool(append(dst, `,"ok":`...), it.OK)
	text("position", it.Position)
	if it.Deduplicated {
		dst = append(dst, `,"deduplicated":true`...)
	}
	if it.Status != 0 {
		dst = strconv.AppendInt(append(dst, `,"status":`...), int64(it.Status), 10)
	}
	text("error", it.Error)
	text("attribute", it.Attribute)
	return append(dst, '}')
}

func (it *item) fault(p *problem) {
	it.OK, it.Status, it.Error, it.Attribute, it.outcome = false, p.Status, p.Detail, p.Attribute, p.outcome
	if p.id != "" {
		it.ID = p.id
	}
}

// badInput is the answer to an event that cannot be taken as it is.
func badInput(err error) *problem {
	p := &problem{Status: http.StatusBadRequest, Detail: err.Error(), outcome: Invalid}
	var (
		attr  *bus.AttributeError
		media *bus.MediaTypeError
		large *tooLarge
		bad   *bus.BadEvent
	)
	if errors.As(err, &bad) {
		p.id = bad.ID
	}
	switch {
	case errors.As(err, &attr):
		p.Attribute = attr.Name
	case errors.As(err, &media):
		p.Status, p.outcome = http.StatusUnsupportedMediaType, Unsupported
	case errors.As(err, &large):
		p.Status, p.outcome = http.StatusRequestEntityTooLarge, TooLarge
		p.hangUp = true
	case errors.Is(err, bus.ErrTooMany):
		p.Status, p.outcome = http.StatusRequestEntityTooLarge, TooLarge
	case errors.Is(err, errSlow):
		p.Status, p.outcome, p.hangUp = http.StatusRequestTimeout, Slow, true
	case errors.Is(err, errCut):
		p.outcome, p.hangUp = Aborted, true
	}
	return p
}

// badStore is the answer to an event that the bus did not take. What the store
// said stays in the log: it may name files and addresses.
func badStore(ctx context.Context, err error) *problem {
	p := &problem{Status: http.StatusServiceUnavailable, after: 1, outcome: Unavailable,
		Detail: "the store does not answer: the event may be stored or not; send it again with the same id"}
	switch {
	case errors.Is(err, bus.ErrTooLarge):
		p.Status, p.outcome, p.after = http.StatusRequestEntityTooLarge, TooLarge, 0
		p.Detail = "the event is larger than the store accepts"
	case errors.Is(err, bus.ErrOverloaded):
		p.Status, p.outcome = http.StatusTooManyRequests, Overloaded
		p.Detail = "the bus is overloaded: send the event again a little later"
	case errors.Is(err, bus.ErrFull):
		p.Status, p.outcome, p.after = http.StatusInsufficientStorage, Full, 30
		p.Detail = "the store is full: send the event again when space was made"
	case errors.Is(err, errResting):
		p.outcome, p.after = Closed, 10
		p.Detail = "this source is paused or is being started: send the event again a little later"
	case errors.Is(err, bus.ErrClosed):
		p.outcome, p.after = Closed, 2
		p.Detail = "the bus is shutting down: send the event again in a moment"
	case ctx.Err() != nil:
		p.outcome = Aborted
	}
	return p
}

func writeProblem(w http.ResponseWriter, p *problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.after))
	}
	if p.Status == http.StatusUnsupportedMediaType {
		w.Header().Set("Accept-Post", bus.TypeStructured+", "+bus.TypeBatch)
	}
	if p.hangUp {
		w.Header().Set("Connection", "close")
	}
	body, err := json.Marshal(p)
	if err != nil { // it holds nothing that cannot be encoded
		http.Error(w, p.Title, p.Status)
		return
	}
	writeJSON(w, "application/problem+json", p.Status, body)
}

func writeJSON(w http.ResponseWriter, mediaType string, status int, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	// Who does not read the answer sends the event again.
	_, _ = w.Write(body)
}

// appendAccepted is the answer to one event: by hand, because every event costs it.
func appendAccepted(dst []byte, e bus.Event, r bus.Result) []byte {
	dst = append(dst, `{"id":`...)
	dst = gjson.AppendJSONString(dst, e.ID())
	dst = append(dst, `,"source":`...)
	dst = gjson.AppendJSONString(dst, e.Source())
	status := `,"status":"accepted","position":"`
	if r.Deduplicated {
		status = `,"status":"deduplicated","position":"`
	}
	dst = append(dst, status...)
	dst = strconv.AppendUint(dst, r.Position.Seq, 10)
	dst = append(dst, '.')
	dst = strconv.AppendInt(dst, int64(r.Position.Index), 10)
	return append(dst, `"}`...)
}

// answer writes what became of the batch.
func (b *batch) answer(w http.ResponseWriter) {
	taken := 0
	for i := range b.items {
		if b.items[i].OK {
			taken++
		}
	}
	rejected := len(b.items) - taken
	if taken == 0 && rejected > 0 {
		p := *b.worst
		if !p.retryable() {
			p.Status = http.StatusBadRequest
		}
		p.hangUp, p.Attribute = false, ""
		p.Rejected, p.Events = rejected, b.items
		p.Detail = fmt.Sprintf("none of the %d events was taken; one of the reasons: %s", rejected, p.Detail)
		writeProblem(w, &p)
		return
	}
	status := http.StatusAccepted
	if rejected > 0 {
		status = http.StatusMultiStatus
	}
	// By hand, like appendAccepted: encoding/json costs a twentieth of a batch.
	body := make([]byte, 0, 64+96*len(b.items))
	body = strconv.AppendInt(append(body, `{"accepted":`...), int64(taken), 10)
	body = strconv.AppendInt(append(body, `,"rejected":`...), int64(rejected), 10)
	body = append(body, `,"events":[`...)
	for i := range b.items {
		if i > 0 {
			body = append(body, ',')
		}
		body = b.items[i].appendJSON(body)
	}
	body = append(body, "]}"...)
	writeJSON(w, "application/json", status, body)
}
