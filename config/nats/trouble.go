package nats

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Class is what an error of a server is about.
type Class byte

// The classes.
const (
	Outage  Class = iota // the server or the network: it may pass
	Login                // the server does not take the credentials
	Denied               // the server took them, and does not allow this
	Unknown              // there is no such stream or consumer
	Large                // a message is larger than the server or the stream takes
	Invalid              // the server will never take this message
)

// Explain says in plain words what an error means and what to do about it. One that it
// has explained before stays as it is.
func Explain(err error) (Class, error) {
	var before *explained
	if errors.As(err, &before) {
		return before.class, err
	}
	class, advice := classify(err)
	if advice == "" {
		return class, err
	}
	return class, &explained{class, advice, err}
}

// explained is an error with what to do about it.
type explained struct {
	class  Class
	advice string
	err    error
}

func (e *explained) Error() string { return e.advice + ": " + e.err.Error() }

func (e *explained) Unwrap() error { return e.err }

// Codes of JetStream that nats.go has no name for.
const (
	codeExpectedStream jetstream.ErrorCode = 10060 // another stream has the subject
	codeStoreFailed    jetstream.ErrorCode = 10077 // with DiscardNew: no room
)

func classify(err error) (Class, string) {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var notTLS tls.RecordHeaderError
	var alert *net.OpError // what crypto/tls makes of an alert
	var api *jetstream.APIError
	switch {
	case is(nats.ErrAuthorization, nats.ErrAuthRevoked, nats.ErrNkeysNotSupported):
		return Login, "the server refused the login: check user and password, token, nkey or credentials"
	case is(nats.ErrAuthExpired, nats.ErrAccountAuthExpired):
		return Login, "the credentials have expired: have new ones made"
	case is(nats.ErrPermissionViolation):
		return Denied, "the user may not do this: give it the permission, or check the login"
	case is(jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount):
		return Outage, "JetStream is not enabled there: enable it, or use core subjects"
	case is(jetstream.ErrStreamNotFound):
		return Unknown, "there is no such stream: create it, or check its name"
	case is(jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDoesNotExist, jetstream.ErrConsumerDeleted):
		return Unknown, "there is no such consumer any more"
	case is(nats.ErrMaxPayload):
		return Large, "the message is larger than the server takes (max_payload)"
	case is(jetstream.ErrStreamMessageExceedsMaximum):
		return Large, "the message is larger than the stream takes (max_msg_size)"
	case is(nats.ErrBadSubject, jetstream.ErrInvalidSubject, nats.ErrHeadersNotSupported):
		return Invalid, "the message cannot be published"
	case errors.As(err, &api) && api.ErrorCode == codeExpectedStream:
		return Unknown, "the subject belongs to another stream: check stream and subject"
	case errors.As(err, &api) && api.ErrorCode == codeStoreFailed:
		return Outage, "the stream has no room and refuses what is new: have it emptied, or give it more"
	case is(nats.ErrSecureConnWanted):
		return Outage, "the server does not offer TLS: leave tls out"
	case errors.As(err, &certificate), errors.As(err, &authority):
		return Outage, "the server's certificate is not trusted: check tls.ca and tls.server_name"
	case errors.As(err, &notTLS):
		return Outage, "no TLS is spoken on this port: check the port"
	case errors.As(err, &alert) && alert.Op == "remote error", is(nats.ErrTLS): // the alert may be lost when both write at a time
		return Outage, "the server ended the TLS handshake: check tls.cert and tls.key"
	case is(nats.ErrNoServers):
		return Outage, "nothing answers at this address: check it, and that the server runs"
	case is(nats.ErrNoInfoReceived):
		return Outage, "what answers at this address is no NATS server: check the port"
	}
	return Outage, ""
}

// State is what a Watch knows of a connection.
type State struct {
	Err     error           // why it is down; nil while it works
	Class   Class           // of Err
	Denied  error           // the last thing that the user was not allowed to do since it connected; nil when there was none
	Closed  bool            // it is given up for good, because of Err
	Changed <-chan struct{} // closed when any of these change
}

// Watch follows one connection, which is mended in the background where no call
// returns its errors.
type Watch struct {
	report  func(error)
	slow    func(*nats.Subscription)
	mu      sync.Mutex
	state   State
	changed chan struct{}
	denials []*Denials // those who listen
}

// NewWatch returns a Watch that tells report of trouble, and of its end with nil,
// and slow of subscriptions that drop messages. Either may be nil.
func NewWatch(report func(error), slow func(*nats.Subscription)) *Watch {
	w := &Watch{report: report, slow: slow, changed: make(chan struct{})}
	w.state.Changed = w.changed
	return w
}

// State is what is known now.
func (w *Watch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// onFiles is told of files of tls that cannot be used, as a connection is made again.
func (w *Watch) onFiles(err error) {
	if w.report != nil {
		w.report(err)
	}
}

func (w *Watch) change(shown error, set func(*State)) {
	w.mu.Lock()
	set(&w.state)
	close(w.changed)
	w.changed = make(chan struct{})
	w.state.Changed = w.changed
	w.mu.Unlock()
	if w.report != nil {
		w.report(shown)
	}
}

func (w *Watch) down(class Class, err error) {
	w.change(err, func(s *State) {
		if s.Err == nil || s.Class != Login || class == Login { // why it is refused says more than that it is gone
			s.Class, s.Err = class, err
		}
	})
}

// onError is called for what the server says unasked.
func (w *Watch) onError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		if w.slow != nil && sub != nil {
			w.slow(sub)
		}
		return
	}
	switch class, explained := Explain(err); class {
	case Login:
		w.down(class, explained)
	case Denied:
		w.change(explained, func(s *State) {
			s.Denied = explained
			for _, d := range w.denials {
				d.all = append(d.all, explained)
			}
		})
	default:
		w.change(explained, func(*State) {})
	}
}

func (w *Watch) onDisconnect(_ *nats.Conn, err error) {
	if err == nil {
		return // closed by ourselves
	}
	class, explained := Explain(err)
	w.down(class, fmt.Errorf("the connection is lost: %w", explained))
}

func (w *Watch) onAttempt(_ *nats.Conn, err error) {
	class, explained := Explain(err)
	w.down(class, fmt.Errorf("cannot connect again: %w", explained))
}

func (w *Watch) onReconnect(*nats.Conn) {
	// The server is told of all subscriptions anew: what it does not allow, it says again.
	w.change(nil, func(s *State) { s.Class, s.Err, s.Denied = Outage, nil, nil })
}

func (w *Watch) onClosed(c *nats.Conn) {
	err := c.LastError()
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	class, explained := Explain(err)
	w.mu.Lock()
	known := w.state.Err != nil
	w.mu.Unlock()
	w.change(explained, func(s *State) {
		if s.Closed = true; !known {
			s.Class, s.Err = class, explained
		}
	})
}
