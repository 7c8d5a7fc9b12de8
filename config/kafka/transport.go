package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// How long things may take, beside what the caller's context says.
const (
	answerTimeout = 30 * time.Second // for a broker to answer a request
	layoutAge     = 5 * time.Second  // for what is known of topics and leaders to be looked up again, at most
)

// Transport sends requests through kafka-go, each to the broker that it is for. It
// connects with the first request, and to as many connections as there are requests
// at the same time.
type Transport struct {
	kafkaGo segmentio.Transport
	seeds   net.Addr
	end     context.CancelFunc
	trouble atomic.Pointer[error] // what is wrong with the last connection that was tried, nil when it answered
}

// Transport is kafka-go's transport for the connection. With topics only those are
// known, which spares a large cluster from telling of all it has. It reads the files
// of tls, and nothing from the network; see Options for log.
func (c *Connection) Transport(log *slog.Logger, topics ...string) (*Transport, error) {
	dial, err := c.dialer(log)
	if err != nil {
		return nil, err
	}
	login, err := c.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	t := &Transport{seeds: segmentio.TCP(c.Brokers...), end: end}
	t.kafkaGo = segmentio.Transport{
		Context: life, ClientID: c.ClientID, SASL: login,
		DialTimeout: dialTimeout, MetadataTTL: layoutAge, MetadataTopics: topics,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			slow := fmt.Errorf("broker %s does not take the connection", address)
			t.trouble.CompareAndSwap(nil, &slow)
			conn, err := dial(ctx, network, address)
			if err != nil {
				err = fmt.Errorf("broker %s: %w", address, err)
				if !errors.Is(err, context.Canceled) {
					t.trouble.Store(&err)
				}
				return nil, err
			}
			silent := fmt.Errorf("broker %s took the connection and does not answer: check the port, and whether it wants TLS", address)
			t.trouble.Store(&silent)
			w := &wire{Conn: conn, greeted: func() { t.trouble.Store(nil) }, broke: t.kafkaGo.CloseIdleConnections}
			w.forget = context.AfterFunc(life, func() { _ = conn.Close() })
			return w, nil
		},
	}
	return t, nil
}

// mechanism is the login in kafka-go's terms, nil for none.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // no login
	}
	user, password := s.User.Value(), s.Password.Value()
	if s.Mechanism == Plain {
		return plain.Mechanism{Username: user, Password: password}, nil
	}
	algorithm := scram.SHA512
	if s.Mechanism == ScramSHA256 {
		algorithm = scram.SHA256
	}
	m, err := scram.Mechanism(algorithm, user, password)
	if err != nil { // it shows a letter of the password
		return nil, errors.New("sasl: the user or the password has characters that SCRAM does not allow (RFC 4013)")
	}
	return m, nil
}

// RoundTrip sends a request and returns the answer. The error of one that came to
// nothing in time has the reason, where there is one.
func (t *Transport) RoundTrip(ctx context.Context, req segmentio.Request) (segmentio.Response, error) {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := t.kafkaGo.RoundTrip(limited, t.seeds, req)
	if err == nil {
		return resp, nil
	}
	if end, _ := limited.Deadline(); errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(end) {
		<-limited.Done() // the connection's clock was first
	}
	if limited.Err() != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("the cluster did not answer within %s: %w", answerTimeout, err)
		}
		if last := t.trouble.Load(); last != nil {
			_, explained := Explain(*last)
			err = fmt.Errorf("%w; last: %w", err, explained)
		}
	} else if _, ok := req.(*metadata.Request); ok {
		// The cluster was never reached: kafka-go keeps that error for a while, and
		// tries in the background. The next request is to try itself.
		t.kafkaGo.CloseIdleConnections()
	}
	return nil, err
}

// Close ends all connections.
func (t *Transport) Close() {
	t.kafkaGo.CloseIdleConnections()
	t.end()
}

// maxGreeting is the largest first answer of a broker: the versions it speaks.
const maxGreeting = 1 << 20

// wire is a connection that makes up for what kafka-go does not do. It waits for
// nothing without end: kafka-go lifts the deadline for the login. It does not take for
// Kafka what is none: kafka-go makes room for as much as the first bytes of any other
// protocol seem to announce. And where it breaks, the idle ones are not used any more:
// kafka-go would find out with one request after the other.
type wire struct {
	net.Conn
	forget  func() bool
	greeted func() // by its first answer; nil from then on
	stray   error  // what it said was not Kafka
	broke   func() // after it worked
}

// SetDeadline is net.Conn.SetDeadline.
func (w *wire) SetDeadline(at time.Time) error {
	if at.IsZero() {
		at = time.Now().Add(dialTimeout)
	}
	return w.Conn.SetDeadline(at)
}

// Read is net.Conn.Read.
func (w *wire) Read(p []byte) (int, error) {
	switch {
	case w.stray != nil:
		return 0, w.stray
	case w.greeted == nil || len(p) < 4:
		n, err := w.Conn.Read(p)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			w.broke()
		}
		return n, err
	}
	n, err := io.ReadFull(w.Conn, p[:4])
	if err != nil {
		return n, err
	}
	switch size := binary.BigEndian.Uint32(p); {
	case p[0] == 0x15 && p[1] == 3: // a TLS alert
		w.stray = errors.New("the broker wants TLS on this port: check the port, or set tls")
	case size > maxGreeting:
		w.stray = fmt.Errorf("what answers there does not speak Kafka (it begins with %q): check the port", p[:4])
	}
	if w.stray != nil {
		return 0, w.stray
	}
	w.greeted()
	w.greeted = nil
	return n, nil
}

// Close is net.Conn.Close.
func (w *wire) Close() error {
	w.forget()
	return w.Conn.Close()
}
