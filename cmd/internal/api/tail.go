package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
)

// notice is one line of a tail.
type notice struct {
	At              time.Time       `json:"at"`
	Stage           string          `json:"stage"`
	Event           json.RawMessage `json:"event"`
	Position        string          `json:"position,omitempty"`
	Rules           []string        `json:"rules,omitzero"` // [] when accepted and none matched
	WhereMisses     []whereMiss     `json:"where_misses,omitempty"`
	DeliveryID      string          `json:"delivery_id,omitempty"`
	Rule            string          `json:"rule,omitempty"`
	Sink            string          `json:"sink,omitempty"`
	Attempt         int             `json:"attempt,omitempty"`
	Status          int             `json:"status,omitempty"`
	Class           string          `json:"class,omitempty"`
	Error           string          `json:"error,omitempty"`
	DurationSeconds float64         `json:"duration_seconds,omitempty"`
	AfterSeconds    float64         `json:"after_seconds,omitempty"`
	Reason          string          `json:"reason,omitempty"`
	Missed          int64           `json:"missed,omitempty"` // so far: this tail is too slow
}

func showNotice(n dispatch.Notice, missed int64) notice {
	shown := notice{
		At: n.At, Stage: n.Stage, Event: eventJSON(n.Event), Rules: n.Rules, WhereMisses: showMisses(n.Misses), DeliveryID: n.DeliveryID, Rule: n.Rule,
		Sink: n.Sink, Attempt: n.Attempt, Status: n.Status, Class: n.Class, Error: n.Error,
		DurationSeconds: seconds(n.Duration), AfterSeconds: seconds(n.After), Reason: n.Reason, Missed: missed,
	}
	if n.Stage == dispatch.StageAccepted {
		shown.Position = n.Position.String()
	}
	return shown
}

func (a *api) tail(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "rule", "sink", "stage", "pattern")
	if err != nil {
		return err
	}
	set, err := dispatch.PatternFilter([]byte(q.Get("pattern")))
	if err != nil {
		return err
	}
	stages := dispatch.Stages()
	for _, stage := range q.Values["stage"] {
		if !slices.Contains(stages, stage) {
			return refuse(http.StatusBadRequest, "there is no stage %q: there are %s", stage, strings.Join(stages, ", "))
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	lines := &lineWriter{w: w, control: http.NewResponseController(w)}
	var keeper sync.WaitGroup
	err = a.Bus.Tail(ctx, dispatch.TailFilter{
		Rule: q.Get("rule"), Sink: q.Get("sink"), Stages: q.Values["stage"], Pattern: set,
		Attached: func() {
			lines.begin()
			keeper.Go(func() { lines.keepAlive(ctx, a.KeepAlive, cancel) })
		},
	}, func(n dispatch.Notice, missed int64) error {
		text, err := json.Marshal(showNotice(n, missed))
		if err != nil {
			return err
		}
		return lines.write(append(text, '\n'))
	})
	cancel()
	keeper.Wait()
	if err != nil && !errors.Is(err, bus.ErrClosed) {
		a.Log.Debug("a tail ended", "err", err)
	}
	return nil
}

// lineWriter sends each line at once.
type lineWriter struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
}

// linePatience is how long a client may take to read a line, or a reply that it waited for.
const linePatience = 30 * time.Second

// begin sends the header, so that the client knows that it is attached.
func (l *lineWriter) begin() {
	// The server's deadline for the request would end the stream. A writer without
	// deadlines, such as a recorder, has none to take away.
	_ = l.control.SetReadDeadline(time.Time{})
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.Header().Set("Cache-Control", "no-store")
	l.w.Header().Set("X-Accel-Buffering", "no")
	l.w.WriteHeader(http.StatusOK)
	_ = l.write(nil)
}

func (l *lineWriter) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.control.SetWriteDeadline(time.Now().Add(linePatience))
	if _, err := l.w.Write(line); err != nil {
		return err
	}
	return l.control.Flush()
}

// keepAlive sends an empty line every so often, so that nobody in between takes
// the connection for dead; failed is called when the client has gone.
func (l *lineWriter) keepAlive(ctx context.Context, every time.Duration, failed func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if l.write([]byte("\n")) != nil {
				failed()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
