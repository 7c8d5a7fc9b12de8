package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Class is what an error of a cluster is about.
type Class byte

// The classes.
const (
	Outage  Class = iota // the cluster or the network: it may pass
	Login                // the broker does not take the credentials
	Denied               // the broker took them, and does not allow this
	Unknown              // there is no such topic
	Large                // a record is larger than the broker takes
	Invalid              // the broker will never take this record
)

// Explain says in plain words what an error means and what to do about it.
func Explain(err error) (Class, error) {
	class, advice := classify(err)
	if advice == "" {
		return class, err
	}
	return class, fmt.Errorf("%s: %w", advice, err)
}

// code is the error code that a broker gave, in the terms of either client; 0 when it
// gave none.
func code(err error) segmentio.Error {
	var franz *kerr.Error
	var kafkaGo segmentio.Error
	switch {
	case errors.As(err, &franz):
		return segmentio.Error(franz.Code)
	case errors.As(err, &kafkaGo):
		return kafkaGo
	case errors.Is(err, protocol.ErrNoTopic):
		return segmentio.UnknownTopicOrPartition
	}
	return 0
}

func classify(err error) (Class, string) {
	switch code(err) {
	case segmentio.SASLAuthenticationFailed, segmentio.IllegalSASLState:
		return Login, "the broker refused the login: check user and password (sasl)"
	case segmentio.UnsupportedSASLMechanism:
		return Login, "the broker does not offer this way to log in: check sasl.mechanism"
	case segmentio.TopicAuthorizationFailed:
		return Denied, "the user may not use the topic: give it access, or check the login (sasl)"
	case segmentio.GroupAuthorizationFailed:
		return Denied, "the user may not use the consumer group: give it access, or choose another group"
	case segmentio.ClusterAuthorizationFailed, segmentio.TransactionalIDAuthorizationFailed:
		return Denied, "the user may not do this on the cluster: give it access"
	case segmentio.UnknownTopicOrPartition, segmentio.UnknownTopicID:
		return Unknown, "there is no such topic, or the user may not know of it: create it, or check its name"
	case segmentio.MessageSizeTooLarge, segmentio.RecordListTooLarge:
		return Large, "the record is larger than max_bytes or than the broker takes (max.message.bytes)"
	case segmentio.InvalidTopic:
		return Invalid, "this cannot be the name of a topic"
	case segmentio.InvalidRecord, segmentio.InvalidTimestamp, segmentio.InvalidMessage:
		return Invalid, "the broker does not take the record"
	}
	return classifyConnection(err)
}

// classifyConnection is about an error that no broker gave in so many words.
func classifyConnection(err error) (Class, string) {
	var first *kgo.ErrFirstReadEOF
	var notTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var alert *net.OpError // what crypto/tls makes of an alert
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority):
		return Outage, "the broker's certificate is not trusted: check tls.ca and tls.server_name"
	case errors.As(err, &notTLS):
		return Outage, "the broker does not speak TLS on this port: check the port, or leave tls out"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return Outage, "the broker ended the TLS handshake: check tls.cert and tls.key"
	case errors.As(err, &first), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Outage, "the broker closed the connection: check user, password and the SASL/TLS settings if it always does"
	}
	return Outage, ""
}

// Watch follows the connections of one client of franz-go, which are made and mended in the
// background where no call returns their errors. It is a kgo.Hook.
type Watch struct {
	report   func(error)
	mu       sync.Mutex
	last     error
	class    Class
	refused  chan struct{} // closed while the broker refuses the login
	answered bool          // a request was answered, once
}

// NewWatch returns a Watch that tells report of trouble, and of its end with nil.
func NewWatch(report func(error)) *Watch {
	return &Watch{report: report, refused: make(chan struct{})}
}

// Refused is closed when a broker refuses the login.
func (w *Watch) Refused() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused
}

// Trouble is the last error of a connection, and nil when one works again.
func (w *Watch) Trouble() (Class, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.class, w.last
}

// OnBrokerConnect is kgo.HookBrokerConnect: err is of the connection, the TLS
// handshake or the login.
func (w *Watch) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	class, explained := Explain(err)
	explained = fmt.Errorf("broker %s: %w", net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port))), explained)
	w.mu.Lock()
	if class == Login && w.class != Login {
		close(w.refused)
	}
	if class == Login || w.class != Login {
		w.class, w.last = class, explained
	}
	w.mu.Unlock()
	w.report(explained)
}

// OnBrokerRead is kgo.HookBrokerRead: an answer to a real request ends the trouble. A
// broker that wants a login and gets none hangs up at the first one.
func (w *Watch) OnBrokerRead(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch kmsg.Key(key) {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return
	}
	w.mu.Lock()
	stranger := err != nil && !w.answered
	w.answered = w.answered || err == nil
	over := err == nil && w.last != nil
	if over {
		if w.class == Login {
			w.refused = make(chan struct{})
		}
		w.class, w.last = Outage, nil
	}
	w.mu.Unlock()
	switch {
	case over:
		w.report(nil)
	case stranger:
		w.OnBrokerConnect(meta, 0, nil, err)
	}
}
