// Package nats is what the nats source and the nats sink have in common: the
// settings of a connection to NATS servers, and what its errors mean. It neither
// reads nor writes messages.
package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"sluice/config/value"
)

// Connection are the settings of a connection to NATS servers.
type Connection struct {
	URLs        []string     `yaml:"urls" doc:"Servers to start from, such as nats://127.0.0.1:4222; the others of a cluster are learned from them."`
	User        value.Text   `yaml:"user" doc:"The name of the user."`
	Password    value.Secret `yaml:"password" doc:"The user's password, as a reference: ${env:NAME} or ${file:/path}."`
	Token       value.Secret `yaml:"token" doc:"A token, where the server asks for one and for no user."`
	NKey        value.Secret `yaml:"nkey" doc:"The seed of the user's NKey (SU…), as a reference."`
	Credentials value.Secret `yaml:"credentials" doc:"What a credentials file of nsc holds, the JWT and the seed: ${file:/path/user.creds}."`
	TLS         *value.TLS   `yaml:"tls" doc:"Encrypts the connection; {} checks the server's certificate against the system's authorities."`
}

// Validate finds what a single value cannot show.
func (c *Connection) Validate() value.Faults {
	var faults value.Faults
	if len(c.URLs) == 0 {
		faults.Add("urls", "is missing: name at least one server, such as [\"nats://127.0.0.1:4222\"]")
	}
	for i, text := range c.URLs {
		if msg := urlFault(text); msg != "" {
			faults.Add(fmt.Sprintf("urls[%d]", i), "%s", msg)
		}
	}
	if (c.User.Value() == "") != c.Password.IsZero() {
		faults.Add("user", "and password belong together: give both, or neither")
	}
	ways := 0
	for _, given := range []bool{c.User.Value() != "", !c.Token.IsZero(), !c.NKey.IsZero(), !c.Credentials.IsZero()} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		faults.Add("user", "is one of several logins that are given: give only one of user and password, token, nkey and credentials")
	}
	if !c.NKey.IsZero() {
		if _, err := keyOf(c.NKey.Value()); err != nil {
			faults.Add("nkey", "is not the seed of a user: write one that begins with SU")
		}
	}
	if !c.Credentials.IsZero() {
		if _, err := nkeys.ParseDecoratedNKey([]byte(c.Credentials.Value())); err != nil {
			faults.Add("credentials", "does not hold what a credentials file does: refer to the file by ${file:/path/user.creds}")
		}
	}
	return append(faults, c.TLS.Validate()...)
}

// urlFault says what is wrong with the address of a server, or "".
func urlFault(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return "is not the address of a server: write one such as nats://127.0.0.1:4222"
	case u.User != nil:
		return "holds a user or a token: write those into user and password, or token"
	}
	return ""
}

func keyOf(seed string) (public string, err error) {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	public, err = pair.PublicKey()
	if err == nil && !nkeys.IsValidPublicUserKey(public) {
		err = errors.New("not the seed of a user")
	}
	return public, err
}

// How long things may take.
const (
	dialTimeout  = 5 * time.Second // to connect to one server
	pingInterval = 10 * time.Second
	reconnectMax = 5 * time.Second // between two attempts to connect again
)

// Options are the client's options for the connection, which watch follows. They
// read the files of tls, and nothing from the network. A connection that is made again
// uses what the files hold then.
func (c *Connection) Options(name string, watch *Watch) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name("sluice " + name), nats.Timeout(dialTimeout), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(reconnectDelay),
		nats.ErrorHandler(watch.onError), nats.DisconnectErrHandler(watch.onDisconnect), nats.ReconnectErrHandler(watch.onAttempt),
		nats.ReconnectHandler(watch.onReconnect), nats.ClosedHandler(watch.onClosed),
	}
	switch {
	case c.User.Value() != "":
		opts = append(opts, nats.UserInfo(c.User.Value(), c.Password.Value()))
	case !c.Token.IsZero():
		opts = append(opts, nats.Token(c.Token.Value()))
	case !c.NKey.IsZero():
		public, err := keyOf(c.NKey.Value())
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		opts = append(opts, nats.Nkey(public, c.sign))
	case !c.Credentials.IsZero():
		opts = append(opts, nats.UserCredentialBytes([]byte(c.Credentials.Value())))
	}
	if c.TLS != nil {
		files, err := c.TLS.Follow(watch.onFiles)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(files.Current()), nats.ClientTLSConfig(nil, func() (*x509.CertPool, error) {
			return files.Current().RootCAs, nil // nil are those of the system
		}))
		if c.TLS.Cert != "" {
			opts = append(opts, func(o *nats.Options) error {
				o.TLSCertCB = func() (tls.Certificate, error) { return files.Current().Certificates[0], nil }
				return nil
			})
		}
	}
	return opts, nil
}

func (c *Connection) sign(nonce []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed([]byte(c.NKey.Value()))
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// reconnectDelay is the pause after all servers were tried n times.
func reconnectDelay(n int) time.Duration {
	most := min(100*time.Millisecond<<min(n, 10), reconnectMax)
	return most/2 + rand.N(most/2)
}

// Dial connects, and returns soon after ctx ends.
func (c *Connection) Dial(ctx context.Context, opts []nats.Option) (*nats.Conn, error) {
	type dialed struct {
		conn *nats.Conn
		err  error
	}
	done := make(chan dialed, 1)
	go func() {
		conn, err := nats.Connect(strings.Join(c.URLs, ","), opts...)
		done <- dialed{conn, err}
	}()
	select {
	case d := <-done:
		if d.err == nil {
			return d.conn, nil
		}
		_, err := Explain(d.err)
		return nil, fmt.Errorf("cannot connect to %s: %w", strings.Join(c.URLs, ", "), err)
	case <-ctx.Done():
		go func() {
			if d := <-done; d.err == nil {
				d.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// SubjectFault says why a text cannot be a subject, or "". Only one that is
// subscribed to may have wildcards.
func SubjectFault(subject string, wildcards bool) string {
	const most = 1024 // a control line of the protocol has 4 KiB
	if subject == "" || len(subject) > most || !utf8.ValidString(subject) || strings.ContainsFunc(subject, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}) {
		return "is not a subject: up to 1024 characters without spaces, such as orders.created"
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return "has an empty part: there must be something between the dots"
		case token != "*" && token != ">":
		case !wildcards:
			return "has the wildcard " + token + ", which events cannot be published to"
		case token == ">" && i < len(tokens)-1:
			return "has > in the middle: it stands for the rest, at the end"
		}
	}
	return ""
}

// IsName tells whether a stream or a consumer can have that name.
func IsName(name string) bool {
	return name != "" && len(name) <= 255 && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`.*>/\`, r)
	})
}
