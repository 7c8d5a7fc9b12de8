// Package kafka is what the kafka source and the kafka sink have in common: the
// settings of a connection to a cluster, and what the errors of one mean. It
// neither reads nor writes records.
//
// The client is franz-go. kafka-go was tried first and falls short for a bus that
// must not invent or lose anything: v0.4.51 hands out the control markers of
// transactions as records, takes an offset that the coordinator could not look up
// for one that was never committed, and does not bound what a batch decompresses to.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
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
type TLS struct {
	CA         string `yaml:"ca" doc:"A PEM file with the authorities that may sign the broker's certificate, in place of the system's."`
	Cert       string `yaml:"cert" doc:"A PEM file with the certificate to show to the broker."`
	Key        string `yaml:"key" doc:"A PEM file with the key of cert."`
	ServerName string `yaml:"server_name" doc:"The name in the broker's certificate, where it is not the host in brokers."`
	Insecure   bool   `yaml:"insecure_skip_verify" doc:"Trust any certificate: whoever is in between can read and change everything. For tests only."`
}

// Defaults are a connection's defaults.
func Defaults() Connection { return Connection{ClientID: "sluice"} }

// Validate finds what a single value cannot show.
func (c *Connection) Validate() []value.Fault {
	var faults []value.Fault
	add := func(key, format string, args ...any) {
		faults = append(faults, value.Fault{Key: key, Msg: fmt.Sprintf(format, args...)})
	}
	if len(c.Brokers) == 0 {
		add("brokers", "is missing: name at least one broker, such as [\"127.0.0.1:9092\"]")
	}
	for i, broker := range c.Brokers {
		if !isAddress(broker) {
			add(fmt.Sprintf("brokers[%d]", i), "%q is not host:port: write one such as 127.0.0.1:9092", broker)
		}
	}
	if s := c.SASL; s != nil {
		if !slices.Contains([]string{Plain, ScramSHA256, ScramSHA512}, s.Mechanism) {
			add("sasl.mechanism", "is missing: write %s, %s or %s", Plain, ScramSHA256, ScramSHA512)
		}
		if s.User.Value() == "" {
			add("sasl.user", "is missing: name the user")
		}
		if s.Password.IsZero() {
			add("sasl.password", "is missing: write a reference such as ${env:KAFKA_PASSWORD}")
		}
	}
	if t := c.TLS; t != nil {
		if (t.Cert == "") != (t.Key == "") {
			add("tls", "has one of cert and key: give both, or neither")
		}
		if t.Insecure && t.CA != "" {
			add("tls.insecure_skip_verify", "makes ca useless: leave out one of them")
		}
	}
	return faults
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

// Options are the client's options for the connection. They read the files of tls,
// and nothing from the network.
func (c *Connection) Options() ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("sluice", "1"),
		kgo.DisableClientMetrics(), // nobody asked for it to send any
		kgo.MetadataMaxAge(30 * time.Second),
		kgo.RetryTimeout(20 * time.Second),
	}
	if c.TLS == nil {
		opts = append(opts, kgo.DialTimeout(dialTimeout))
	} else {
		conf, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.Dialer(dialTLS(conf)))
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

// dialTLS tells a handshake that fails from a connection that does.
func dialTLS(conf *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own := conf.Clone()
		if host, _, err := net.SplitHostPort(address); err == nil && own.ServerName == "" {
			own.ServerName = host
		}
		conn := tls.Client(raw, own)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS handshake (is TLS spoken on this port?): %w", err)
		}
		return conn, nil
	}
}

func (t *TLS) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure} //nolint:gosec // only where the operator wrote it
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no certificate in PEM form", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
