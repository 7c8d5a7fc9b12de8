package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/config/value"
)

func newListenCommand(e *env) *cobra.Command {
	l := &listen{e: e, timeout: 30 * time.Second, concurrency: 1, expires: value.Duration(time.Minute)}
	var s wanted
	var forward string
	cmd := &cobra.Command{
		Use:   "listen --forward URL",
		Short: "Forward live events to a function on this machine.",
		Long: `Forward events, from now on, to a function on this machine, and show each of them with
what the function answers: the server need not reach this machine. The events wait in a
queue of their own, by a subscription that ends with the command, or a minute after it
was killed (--expires). An event that the function does not take with a 2xx is forwarded
again, five times at most.`,
		Example: `  sluice listen --forward http://127.0.0.1:3000 --type order.created
  sluice listen --forward http://127.0.0.1:3000 --match '{"source": [{"prefix": "shop/"}]}' --show-body`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			doc, err := s.subscription(api.QueueSink)
			if err != nil {
				return err
			}
			if l.to, err = value.ParseURL(forward); err != nil {
				return usagef("--forward %w", err)
			}
			if err := l.check(); err != nil {
				return err
			}
			if l.api, err = e.client(); err != nil {
				return err
			}
			doc.Expires = l.expires
			return l.run(c.Context(), doc)
		},
	}
	s.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&forward, "forward", "", "the `URL` of the function")
	f.BoolVar(&l.showBody, "show-body", false, "show the data of the events and the answers whole, and not only how they begin")
	f.IntVarP(&l.count, "count", "n", 0, "end after this `number` of events that were taken")
	f.DurationVar(&l.timeout, "timeout", l.timeout, "how long the function may take")
	f.IntVar(&l.concurrency, "concurrency", l.concurrency, "how many events the function is given at a time, a `number`")
	f.TextVar(&l.expires, "expires", l.expires, "how long events go on to wait after the command was killed, or this machine fell asleep")
	return cmd
}

// listen is one listen command.
type listen struct {
	e           *env
	api         *client
	to          value.URL
	showBody    bool
	count       int
	timeout     time.Duration
	concurrency int
	expires     value.Duration

	printing sync.Mutex // what belongs to one event is shown together
}

// The bounds of what a listen command asks of the server.
const (
	maxListenTimeout = 11 * time.Hour // a message is out of sight for 12 h at most
	maxConcurrency   = 100
	// visibleAfter is how much longer than the function may take a message is out of
	// sight of others.
	visibleAfter = 10 * time.Second
)

func (l *listen) check() error {
	switch {
	case l.timeout <= 0 || l.timeout > maxListenTimeout:
		return usagef("--timeout %s is not a time up to %s", l.timeout, value.Duration(maxListenTimeout))
	case l.concurrency < 1 || l.concurrency > maxConcurrency:
		return usagef("--concurrency %d is not a number from 1 to %d", l.concurrency, maxConcurrency)
	case l.expires <= 0:
		return usagef("--expires %s is no time: write one such as 1m", l.expires)
	}
	return nil
}

// run subscribes, forwards until ctx or the count ends it, and ends the subscription.
func (l *listen) run(ctx context.Context, doc api.Subscription) error {
	doc.ID = "listen-" + strings.ToLower(rand.Text()[:12])
	path := "subscriptions/" + doc.ID
	_, err := l.api.call(ctx, http.MethodPut, path, nil, doc)
	if err != nil && ctx.Err() == nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = l.api.call(end, http.MethodDelete, path, nil, nil) // or it expires
	}()
	l.e.note("forwarding to %s; Ctrl-C ends it", l.to)
	running, stop := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { stop(l.renew(running, path)) })
	err = l.forward(running, config.SubscriptionPrefix+doc.ID)
	stop(errListened)
	renewing.Wait()
	if ctx.Err() != nil {
		return nil // somebody has ended it
	}
	if cause := context.Cause(running); !errors.Is(cause, errListened) {
		return cause
	}
	return err
}

// errListened is why a listener that was not interrupted has ended.
var errListened = errors.New("all is forwarded")

// renew keeps the subscription alive until ctx ends, however long the function takes.
func (l *listen) renew(ctx context.Context, path string) error {
	tick := time.NewTicker(max(time.Duration(l.expires)/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, err := l.api.post(ctx, path+"/renew", nil)
		var no *apiError
		switch {
		case err == nil || !errors.As(err, &no) || no.Status >= http.StatusInternalServerError:
			// There is time for another attempt; whether the server is there at all
			// shows where events are fetched.
		case no.Status == http.StatusNotFound:
			return fmt.Errorf("the subscription has ended: somebody has ended it, or it was not renewed for %s; --expires lets it wait longer", l.expires)
		default:
			return err
		}
	}
}

// forward fetches events and gives them to the function, a few at a time, until ctx ends
// or enough were taken.
func (l *listen) forward(ctx context.Context, queue string) error {
	ended := make(chan delivered, l.concurrency)
	running, taken := 0, 0
	defer func() {
		for ; running > 0; running-- {
			<-ended
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is under way ends before it is waited for
	for {
		free := l.concurrency - running
		if l.count > 0 {
			free = min(free, l.count-taken-running)
		}
		if free == 0 && running == 0 {
			return nil
		}
		var got []messageDoc
		if free > 0 {
			var err error
			if got, err = l.receive(ctx, queue, free); err != nil {
				return err
			}
		}
		for _, m := range got {
			running++
			go func() { ended <- l.finish(ctx, queue, m) }()
		}
		for wait := free == 0; running > 0; wait = false {
			d, ok := next(ended, wait)
			if !ok {
				break
			}
			running--
			if d.taken {
				taken++
			}
			if d.err != nil {
				return d.err
			}
		}
	}
}

// next is what came from c; without wait only what is there.
func next[T any](c <-chan T, wait bool) (v T, ok bool) {
	if wait {
		return <-c, true
	}
	select {
	case v = <-c:
		return v, true
	default:
		return v, false
	}
}

// receive fetches what is there, or waits a while for it.
func (l *listen) receive(ctx context.Context, queue string, most int) ([]messageDoc, error) {
	got, err := decode[struct{ Messages []messageDoc }](l.api.post(ctx, queueURL(queue, "receive"), map[string]any{
		"max": min(most, maxFetch), "wait": "10s", "visibility": (l.timeout + visibleAfter).String(),
	}))
	return got.Messages, err
}

// maxFetch is how many messages one request may fetch.
const maxFetch = 10

// delivered is what came of one attempt.
type delivered struct {
	taken bool
	err   error // of telling the server
}

// finish gives an event to the function, and tells the server what came of it.
func (l *listen) finish(ctx context.Context, queue string, m messageDoc) delivered {
	verb, body := "ack", map[string]any{"receipts": []string{m.Receipt}}
	taken, again := l.deliver(ctx, m)
	if again {
		verb = "nack"
		body["delay"] = (time.Duration(m.Receives) * time.Second).String()
	}
	if ctx.Err() != nil && again {
		return delivered{} // the subscription ends now, and the queue with it
	}
	_, err := l.api.post(context.WithoutCancel(ctx), queueURL(queue, verb), body)
	return delivered{taken, err}
}

// deliver sends an event to the function and shows what came of that: whether the
// function took it, and if not, whether another attempt may mend it.
func (l *listen) deliver(ctx context.Context, m messageDoc) (taken, again bool) {
	ev, err := bus.ParseJSON(m.Event)
	if err != nil {
		l.show(attempt{at: time.Now(), message: m, err: fmt.Errorf("not an event: %w", err)})
		return false, false
	}
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	a := attempt{at: time.Now(), message: m, event: ev}
	a.err = l.post(limited, &a)
	a.took = time.Since(a.at)
	if ctx.Err() == nil || a.err == nil {
		l.show(a)
	}
	taken = a.err == nil && a.status/100 == 2
	return taken, !taken
}

// post sends the event of an attempt to the function and reads the answer.
func (l *listen) post(ctx context.Context, a *attempt) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.to.URL.String(), bytes.NewReader(a.event.Data()))
	if err != nil {
		return err
	}
	a.event.AppendHTTPHeader(req.Header)
	req.Header.Set("Sluice-Delivery-Id", a.message.ID)
	req.Header.Set("Sluice-Attempt", strconv.Itoa(a.message.Receives))
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may hold a key
		}
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	a.status, a.mediaType = resp.StatusCode, resp.Header.Get("Content-Type")
	a.answer, _ = io.ReadAll(io.LimitReader(resp.Body, maxShown)) // the status decides
	a.answer = wholeRunes(a.answer)
	return nil
}

// wholeRunes is a text without the character that was cut in two at its end.
func wholeRunes(text []byte) []byte {
	for cut := range min(utf8.UTFMax, len(text)) {
		if utf8.Valid(text[:len(text)-cut]) {
			return text[:len(text)-cut]
		}
	}
	return text
}
