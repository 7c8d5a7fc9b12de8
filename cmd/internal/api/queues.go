package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config/value"
)

// message is one message of a queue. Peeking gives none a receipt.
type message struct {
	ID       string          `json:"id"`
	Receipt  string          `json:"receipt,omitempty"`
	Receives int             `json:"receives"`
	Rule     string          `json:"rule"`
	Accepted time.Time       `json:"accepted"`
	Event    json.RawMessage `json:"event"`
	Error    string          `json:"error,omitempty"` // of peeking: why the rule's transform has no result
}

func showMessages(all []dispatch.Message) map[string]any {
	shown := make([]message, len(all))
	for i, m := range all {
		shown[i] = message{ID: m.ID, Receipt: m.Receipt, Receives: m.Receives, Rule: m.Rule, Accepted: m.Accepted, Event: eventJSON(m.Event)}
		if m.Unshaped != nil {
			shown[i].Error = m.Unshaped.Error() + ": a receive makes it a dead letter"
		}
	}
	return map[string]any{"messages": shown}
}

// listQueues shows the sinks that are queues.
func (a *api) listQueues(w http.ResponseWriter, _ *http.Request) error {
	queues := []sinkAnswer{}
	for _, s := range a.sinks() {
		if s.Kind == "queue" {
			queues = append(queues, s)
		}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"queues": queues})
}

// maxPoll is the longest that a receive waits for a message.
const maxPoll = 20 * time.Second

// span reads a duration of a request; "" is 0.
func duration(name, text string, most time.Duration) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := value.ParseDuration(text)
	if err != nil || d < 0 || time.Duration(d) > most {
		return 0, refuse(http.StatusBadRequest, `%s: %q is no time from 0 to %s: write one such as "20s"`, name, text, value.Duration(most))
	}
	return time.Duration(d), nil
}

func (a *api) receive(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Max        int    `json:"max"`
		Wait       string `json:"wait"`
		Visibility string `json:"visibility"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if body.Max == 0 {
		body.Max = 1
	}
	if body.Max < 1 || body.Max > dispatch.MaxReceive {
		return refuse(http.StatusBadRequest, "max: %d is not from 1 to %d", body.Max, dispatch.MaxReceive)
	}
	wait, err := duration("wait", body.Wait, maxPoll)
	if err != nil {
		return err
	}
	visibility, err := duration("visibility", body.Visibility, maxVisibility)
	if err != nil {
		return err
	}
	// Not a moment is too short to look once.
	ctx, cancel := context.WithTimeout(r.Context(), max(wait, time.Nanosecond))
	defer cancel()
	messages, err := a.Bus.Receive(ctx, r.PathValue("name"), body.Max, visibility)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, showMessages(messages))
}

const maxVisibility = dispatch.MaxDelay

func (a *api) peek(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "limit")
	if err != nil {
		return err
	}
	limit := dispatch.MaxReceive
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > 100 {
			return refuse(http.StatusBadRequest, "limit: %q is not a number from 1 to 100", text)
		}
	}
	messages, err := a.Bus.Peek(r.PathValue("name"), limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, showMessages(messages))
}

// receipts is the body of what is done with messages that were received.
type receipts struct {
	Receipts   []string `json:"receipts"`
	Delay      string   `json:"delay"`      // nack: after which others see them
	Visibility string   `json:"visibility"` // extend: counted from now
}

// maxReceipts is how many messages one request may name.
const maxReceipts = 100

// each does something with the messages of a request, and answers for each.
func (a *api) each(w http.ResponseWriter, r *http.Request, do func(ctx context.Context, body receipts) ([]error, error)) error {
	var body receipts
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if n := len(body.Receipts); n < 1 || n > maxReceipts {
		return refuse(http.StatusBadRequest, "receipts: %d of them is not from 1 to %d", n, maxReceipts)
	}
	if err := a.Bus.CheckReceipts(r.PathValue("name"), body.Receipts...); err != nil {
		return err
	}
	// Who asked may hang up: what has begun is ended.
	errs, err := do(context.WithoutCancel(r.Context()), body)
	if err != nil {
		return err
	}
	type failure struct {
		Receipt string `json:"receipt"`
		Error   string `json:"error"`
	}
	answer := struct {
		Done   int       `json:"done"`
		Failed []failure `json:"failed"`
	}{Failed: []failure{}}
	for i, err := range errs {
		switch {
		case err == nil:
			answer.Done++
		case errors.Is(err, bus.ErrNotFound), errors.Is(err, dispatch.ErrLease):
			answer.Failed = append(answer.Failed, failure{body.Receipts[i], "the receipt is over: the message was acknowledged, or is to be received again"})
		case errors.Is(err, dispatch.ErrReceipt):
			answer.Failed = append(answer.Failed, failure{body.Receipts[i], err.Error()})
		default:
			return err // of the store: all of it is to be asked again
		}
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) ack(w http.ResponseWriter, r *http.Request) error {
	return a.each(w, r, func(ctx context.Context, body receipts) ([]error, error) {
		return a.Bus.Ack(ctx, body.Receipts...), nil
	})
}

func (a *api) nack(w http.ResponseWriter, r *http.Request) error {
	return a.each(w, r, func(ctx context.Context, body receipts) ([]error, error) {
		delay, err := duration("delay", body.Delay, maxVisibility)
		if err != nil {
			return nil, err
		}
		return a.Bus.Nack(ctx, delay, body.Receipts...), nil
	})
}

func (a *api) extend(w http.ResponseWriter, r *http.Request) error {
	return a.each(w, r, func(ctx context.Context, body receipts) ([]error, error) {
		visibility, err := duration("visibility", body.Visibility, maxVisibility)
		if err != nil {
			return nil, err
		}
		if visibility <= 0 {
			return nil, refuse(http.StatusBadRequest, `visibility: is missing: write how long from now the messages are needed, such as "1m"`)
		}
		return a.Bus.Extend(ctx, visibility, body.Receipts...), nil
	})
}

func (a *api) purgeQueue(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	n, err := a.Bus.Purge(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	a.Log.Info("queue purged", "sink", r.PathValue("name"), "discarded", n)
	return writeJSON(w, http.StatusOK, map[string]int{"discarded": n})
}
