package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/internal/api"
)

// waiting is a server with events that wait in the queue of one subscription.
type waiting struct {
	t       *testing.T
	mu      sync.Mutex
	events  int           // that were not received yet
	most    int           // the most that were asked for at once
	acked   []string      // receipts
	renewed chan struct{} // gets something with each renewal
	renewal int           // what that is answered with
	ended   bool          // the subscription is gone
}

func newWaiting(t *testing.T, events int) *waiting {
	t.Helper()
	return &waiting{t: t, events: events, renewed: make(chan struct{}, 1000), renewal: http.StatusNoContent}
}

func (s *waiting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Max      int
		Receipts []string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil && r.Method != http.MethodDelete {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	switch path := r.URL.Path; {
	case r.Method == http.MethodPut && strings.HasPrefix(path, "/subscriptions/listen-"):
		answer(w, http.StatusOK, api.Subscription{})
	case r.Method == http.MethodDelete && strings.HasPrefix(path, "/subscriptions/listen-"):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(path, "/renew"):
		s.renewed <- struct{}{}
		if s.renewal != http.StatusNoContent {
			answer(w, s.renewal, map[string]any{"detail": "no"})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(path, "/receive"):
		messages := s.receive(body.Max)
		if len(messages) == 0 {
			<-r.Context().Done() // a poll that nothing comes to
			return
		}
		answer(w, http.StatusOK, map[string]any{"messages": messages})
	case strings.HasSuffix(path, "/ack"):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.acked = append(s.acked, body.Receipts...)
		answer(w, http.StatusOK, map[string]any{})
	default:
		s.t.Errorf("%s %s is not expected", r.Method, path)
	}
}

func (s *waiting) receive(most int) (messages []messageDoc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = max(s.most, most)
	for ; s.events > 0 && len(messages) < most; s.events-- {
		id := fmt.Sprint("e", s.events)
		messages = append(messages, messageDoc{
			ID: id, Receipt: "r-" + id, Receives: 1, Event: json.RawMessage(`{"specversion":"1.0","id":"` + id + `","source":"/s","type":"t"}`),
		})
	}
	return messages
}

// A function may take as long as --timeout says: the subscription is renewed while it is
// at it.
func TestListenRenewsWhileTheFunctionWorks(t *testing.T) {
	t.Parallel()
	s := newWaiting(t, 1)
	fn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 3 { // as long as the subscription would have lived, nearly
			select {
			case <-s.renewed:
			case <-r.Context().Done():
				t.Error("the event was given up before the subscription was renewed")
				return
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	r := newRig(serve(t, s.ServeHTTP).URL)
	r.run(t, exitOK, "listen", "--forward", fn.URL, "--expires", "100ms", "--timeout", "20s", "-n", "1")
	contains(t, r.out, " t id  e1  204 ")
	if len(s.acked) != 1 || !s.ended {
		t.Errorf("acknowledged: %q, the subscription is ended: %v", s.acked, s.ended)
	}
}

// With --concurrency the function has several events at a time, and never more than that
// or than -n asks for.
func TestListenConcurrency(t *testing.T) {
	t.Parallel()
	s := newWaiting(t, 10)
	both := make(chan struct{})
	fn := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select { // one of two sends what the other receives
		case both <- struct{}{}:
		case <-both:
		case <-r.Context().Done():
			t.Error("no second event came while the first was at the function")
		}
	})
	r := newRig(serve(t, s.ServeHTTP).URL)
	r.run(t, exitOK, "listen", "--forward", fn.URL, "--concurrency", "2", "--timeout", "20s", "-n", "4")
	if len(s.acked) != 4 || s.most != 2 || s.events != 6 {
		t.Errorf("acknowledged: %q; %d were asked for at once, %d are left", s.acked, s.most, s.events)
	}
}

// A subscription that somebody else has ended ends the listener, which says so; and so
// does a token that may not renew it. A server that is busy is asked again.
func TestListenWithoutSubscription(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{http.StatusNotFound: "the subscription has ended", http.StatusForbidden: "the server says no (403)"} {
		s := newWaiting(t, 0)
		s.renewal = status
		r := newRig(serve(t, s.ServeHTTP).URL)
		r.run(t, exitFailure, "listen", "--forward", "http://127.0.0.1:1", "--expires", "10ms")
		contains(t, r.err, want)
	}
	s := newWaiting(t, 0)
	s.renewal = http.StatusServiceUnavailable
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newRig(serve(t, s.ServeHTTP).URL)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"listen", "--forward", "http://127.0.0.1:1", "--expires", "10ms"}, r.env)
	}()
	late := time.After(20 * time.Second)
	for range 3 {
		select {
		case <-s.renewed:
		case <-late:
			t.Fatal("it is not asked again")
		}
	}
	cancel()
	if got := <-code; got != exitOK || !s.ended {
		t.Errorf("exits with %d, the subscription is ended: %v\n%s", got, s.ended, r.err)
	}
}
