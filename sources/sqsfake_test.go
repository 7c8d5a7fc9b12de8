package sources_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sources"
)

// sqsFake is a queue that has the faults a test asks for. It speaks the JSON protocol,
// of which it knows what the source needs.
type sqsFake struct {
	*httptest.Server
	mu       sync.Mutex
	messages []*sqsFakeMessage
	changed  chan struct{}  // closed when there may be something new
	calls    map[string]int // by action
	sent     int
	// fault is asked before each action, and may answer in its place.
	fault func(action string) (status int, code string)
	// entryFault is the same for an entry of a batch.
	entryFault func(action, handle string) (code string, sender bool)
}

type sqsFakeMessage struct {
	id, body string
	attrs    map[string]string
	system   map[string]string
	handle   string
	received int
	hidden   time.Time
	gone     chan struct{}
	extended int
}

func newSQSFake(t *testing.T) *sqsFake {
	t.Helper()
	f := &sqsFake{changed: make(chan struct{}), calls: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// settings are those of a source of the queue.
func (f *sqsFake) settings(t *testing.T) *sources.SQS {
	t.Helper()
	u, err := value.ParseURL(f.URL + "/000000000000/q")
	if err != nil {
		t.Fatal(err)
	}
	s := sources.NewSQS()
	s.QueueURL, s.Region, s.Wait = u, "eu-central-1", value.Duration(time.Second)
	s.Credentials.AccessKey, s.Credentials.SecretKey = value.NewText("key"), value.NewSecret(sqsSecret)
	return s
}

const sqsSecret = "marker-secret-sqs"

// send puts a message into the queue.
func (f *sqsFake) send(body string, attrs map[string]string) *sqsFakeMessage {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent++
	m := &sqsFakeMessage{
		id: fmt.Sprintf("m-%d", f.sent), body: body, attrs: attrs, gone: make(chan struct{}),
		system: map[string]string{"SentTimestamp": "1767323045000"},
	}
	f.messages = append(f.messages, m)
	f.stir()
	return m
}

func (f *sqsFake) stir() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *sqsFake) count(action string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[action]
}

func (f *sqsFake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.stir()
}

type sqsEntry struct {
	ID                string `json:"Id"`
	ReceiptHandle     string
	VisibilityTimeout int
}

// ServeHTTP is http.Handler.
func (f *sqsFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		MaxNumberOfMessages, WaitTimeSeconds, VisibilityTimeout int
		Entries                                                 []sqsEntry
	}
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	f.mu.Lock()
	f.calls[action]++
	fault := f.fault
	f.mu.Unlock()
	if fault != nil {
		if status, code := fault(action); status != 0 {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.sqs#" + code, "message": "said the fake"})
			return
		}
	}
	var out any
	switch action {
	case "ReceiveMessage":
		out = f.receive(r.Context(), in.MaxNumberOfMessages, time.Duration(in.WaitTimeSeconds)*time.Second, time.Duration(in.VisibilityTimeout)*time.Second)
	case "GetQueueAttributes":
		f.mu.Lock()
		out = map[string]any{"Attributes": map[string]string{"ApproximateNumberOfMessages": strconv.Itoa(len(f.messages))}}
		f.mu.Unlock()
	default:
		out = f.batch(action, in.Entries)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (f *sqsFake) receive(ctx context.Context, most int, wait, visibility time.Duration) any {
	deadline := time.After(wait)
	for {
		f.mu.Lock()
		var out []any
		now, next := time.Now(), time.Hour
		for _, m := range f.messages {
			if left := m.hidden.Sub(now); left > 0 {
				next = min(next, left)
				continue
			}
			if ctx.Err() != nil || len(out) == most {
				break
			}
			m.received++
			m.hidden = now.Add(visibility)
			m.handle = fmt.Sprintf("%s/%d", m.id, m.received)
			sum := md5.Sum([]byte(m.body))
			attrs := map[string]any{}
			for name, text := range m.attrs {
				attrs[name] = map[string]string{"DataType": "String", "StringValue": text}
			}
			out = append(out, map[string]any{
				"MessageId": m.id, "ReceiptHandle": m.handle, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
				"Attributes": m.system, "MessageAttributes": attrs,
			})
		}
		changed := f.changed
		f.mu.Unlock()
		if len(out) > 0 || ctx.Err() != nil {
			return map[string]any{"Messages": out}
		}
		select {
		case <-changed:
		case <-time.After(next):
		case <-deadline:
			return map[string]any{}
		case <-ctx.Done():
			return map[string]any{}
		}
	}
}

func (f *sqsFake) batch(action string, entries []sqsEntry) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	good, bad := []any{}, []any{}
	for _, e := range entries {
		if f.entryFault != nil {
			if code, sender := f.entryFault(action, e.ReceiptHandle); code != "" {
				bad = append(bad, map[string]any{"Id": e.ID, "Code": code, "SenderFault": sender, "Message": "said the fake"})
				continue
			}
		}
		good = append(good, map[string]string{"Id": e.ID})
		for i, m := range f.messages {
			if m.handle != e.ReceiptHandle {
				continue
			}
			if action == "DeleteMessageBatch" {
				close(m.gone)
				f.messages = append(f.messages[:i:i], f.messages[i+1:]...)
			} else {
				m.hidden = time.Now().Add(time.Duration(e.VisibilityTimeout) * time.Second)
				m.extended++
			}
			f.stir()
			break
		}
	}
	return map[string]any{"Successful": good, "Failed": bad}
}
