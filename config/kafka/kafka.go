// Package kafka is what the kafka source and the kafka sink have in common: the
// settings of a connection to a cluster, and what the errors of one mean. It
// neither reads nor writes records.
//
// The sink writes with kafka-go, see Transport. The source reads with franz-go, see
// Options: as a reader kafka-go falls short for a bus that must not invent or lose
// anything. v0.4.51 hands out the control markers of transactions as records, takes an
// offset that the coordinator could not look up for one that was never committed, and
// does not bound what a batch decompresses to.
package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"sluice/config/value"
)

// Connection are the settings of a connection to a cluster.
type Connection struct {
	Brokers  []string `yaml:"brokers" doc:"Brokers to start from, each as host:port; the others are learned from them."`
	ClientID string   `yaml:"client_id" doc:"The name that the broker's logs and quotas know this client by."`
	SASL     *SASL    `yaml:"sasl" doc:"How to log in; leave it out where the broker asks for no login."`
	TLS      *TLS     `yaml:"tls" doc:"Encrypts the connection; {} checks the broker's certificate against the system's authorities."`
}

// SASL is a login.
type SASL struct {
	Mechanism string       `yaml:"mechanism" enum:"plain,scram-sha-256,scram-sha-512" doc:"What the broker's listener speaks."`
	User      value.Text   `yaml:"user" doc:"The name of the user."`
	Password  value.Secret `yaml:"password" doc:"The password, as a reference: ${env:NAME} or ${file:/path}."`
}

// The values of SASL.Mechanism.
const (
	Plain       = "plain"
	ScramSHA256 = "scram-sha-256"
	ScramSHA512 = "scram-sha-512"
)

// TLS is an encrypted connection.
type TLS = value.TLS

// Defaults are a connection's defaults.
func Defaults() Connection { return Connection{ClientID: "sluice"} }

// Validate finds what a single value cannot show.
func (c *Connection) Validate() value.Faults {
	var faults value.Faults
	if len(c.Brokers) == 0 {
		faults.Add("brokers", "is missing: name at least one broker, such as [\"127.0.0.1:9092\"]")
	}
	for i, broker := range c.Brokers {
		if !isAddress(broker) {
			faults.Add(fmt.Sprintf("brokers[%d]", i), "%q is not host:port: write one such as 127.0.0.1:9092", broker)
		}
	}
	if s := c.SASL; s != nil {
		if !slices.Contains([]string{Plain, ScramSHA256, ScramSHA512}, s.Mechanism) {
			faults.Add("sasl.mechanism", "is missing: write %s, %s or %s", Plain, ScramSHA256, ScramSHA512)
		}
		if s.User.Value() == "" {
			faults.Add("sasl.user", "is missing: name the user")
		}
		if s.Password.IsZero() {
			faults.Add("sasl.password", "is missing: write a reference such as ${env:KAFKA_PASSWORD}")
		}
	}
	return append(faults, c.TLS.Validate()...)
}

func isAddress(broker string) bool {
	host, port, err := net.SplitHostPort(broker)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// TopicLetters are what the name of a topic is made of.
const TopicLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// IsTopic tells whether a topic can have that name.
func IsTopic(name string) bool {
	return name != "" && len(name) <= 249 && name != "." && name != ".." && strings.Trim(name, TopicLetters) == ""
}

// dialTimeout is how long a broker may take to accept a connection.
const dialTimeout = 10 * time.Second

// Options are the options of franz-go's client for the connection. They read the
// files of tls, and nothing from the network. New connections use what the files hold
// then; log is told when that cannot be.
func (c *Connection) Options(log *slog.Logger) ([]kgo.Opt, error) {
	dial, err := c.dialer(log)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.Dialer(dial),
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("sluice", "1"),
		kgo.DisableClientMetrics(), // nobody asked for it to send any
		kgo.MetadataMaxAge(30 * time.Second),
		kgo.RetryTimeout(20 * time.Second),
	}
	if s := c.SASL; s != nil {
		login := scram.Auth{User: s.User.Value(), Pass: s.Password.Value()}
		switch s.Mechanism {
		case Plain:
			opts = append(opts, kgo.SASL(plain.Auth{User: login.User, Pass: login.Pass}.AsMechanism()))
		case ScramSHA256:
			opts = append(opts, kgo.SASL(login.AsSha256Mechanism()))
		default:
			opts = append(opts, kgo.SASL(login.AsSha512Mechanism()))
		}
	}
	return opts, nil
}

// dialer is how both clients connect: with a limit, and so that a handshake that fails
// can be told from a connection that does.
func (c *Connection) dialer(log *slog.Logger) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	var files *value.TLSFiles
	if c.TLS != nil {
		var err error
		if files, err = c.TLS.Follow(func(err error) { log.Warn("the connection to kafka", "err", err) }); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || files == nil {
			return raw, err
		}
		own := files.Current().Clone()
		if host, _, err := net.SplitHostPort(address); err == nil && own.ServerName == "" {
			own.ServerName = host
		}
		conn := tls.Client(raw, own)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS handshake (is TLS spoken on this port?): %w", err)
		}
		return conn, nil
	}, nil
}
