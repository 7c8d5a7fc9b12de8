package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

// life is which life of the program sent a request, when its URL says so.
func life(r *http.Request) int {
	n, err := strconv.Atoi(r.URL.Query().Get("life"))
	if err != nil {
		return 0
	}
	return n
}

// ordered is a function that looks at the order in which the events of killUnderLoad
// come, and fails one attempt of forty.
type ordered struct {
	*function
	mu       sync.Mutex
	attempts int
	failed   int
	last     map[[2]int]place // by life and publisher
	faults   []string
}

// place is where an event stands among those of its publisher.
type place struct{ round, i int }

func newOrdered(t *testing.T) *ordered {
	o := &ordered{function: newFunction(t, nil), last: map[[2]int]place{}}
	o.set(o.answer)
	return o
}

func (o *ordered) answer(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("ce-id")
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attempts++; o.attempts%40 == 0 {
		o.failed++
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	var now place
	var publisher int
	if _, err := fmt.Sscanf(id, "r%d.w%d.%d", &now.round, &publisher, &now.i); err != nil {
		o.faults = append(o.faults, fmt.Sprintf("event %q is none of the test's", id))
	}
	// A life may begin before the place that an earlier one had got to.
	key := [2]int{life(r), publisher}
	if before := o.last[key]; before.round > now.round || before.round == now.round && before.i > now.i {
		o.faults = append(o.faults, fmt.Sprintf("in life %d, event %s came after r%d.w%d.%d", key[0], id, before.round, publisher, before.i))
	}
	o.last[key] = now
	o.took(id)
}

// batched is a function that takes batches, and leaves one event of forty undone the
// first time.
type batched struct {
	*function
	URL     string
	mu      sync.Mutex
	batches int
	most    int // events in one
	undone  map[string]bool
}

func newBatched(t *testing.T) *batched {
	b := &batched{function: newFunction(t, nil), undone: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.CloseClientConnections)
	b.URL = server.URL
	return b
}

func (b *batched) serve(w http.ResponseWriter, r *http.Request) {
	var events []struct{ ID string }
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type item struct {
		ID string `json:"itemIdentifier"`
	}
	failures := []item{}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches++
	b.most = max(b.most, len(events))
	for i, e := range events {
		if (b.batches+i)%40 == 0 && !b.undone[e.ID] {
			b.undone[e.ID] = true
			failures = append(failures, item{e.ID})
			continue
		}
		b.took(e.ID)
	}
	if err := json.NewEncoder(w).Encode(map[string][]item{"batchItemFailures": failures}); err != nil {
		return // the program was killed meanwhile
	}
}
