package nats_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"sluice/config/nats"
	"sluice/config/nats/natstest"
	"sluice/config/value"
	"sluice/sinks/sinktest"
)

const password = "pa55word-marker"

// user makes an NKey, and credentials of an account that the server trusts.
func user(t *testing.T) (public, seed, creds string, trust func(*server.Options)) {
	t.Helper()
	key := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		pair, err := create()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return pair, public
	}
	must := func(text string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	operator, operatorKey := key(nkeys.CreateOperator)
	account, accountKey := key(nkeys.CreateAccount)
	pair, public := key(nkeys.CreateUser)
	raw, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	accounts := &server.MemAccResolver{}
	if err := accounts.Store(accountKey, must(jwt.NewAccountClaims(accountKey).Encode(operator))); err != nil {
		t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(must(jwt.NewUserClaims(public).Encode(account)), raw)
	if err != nil {
		t.Fatal(err)
	}
	return public, string(raw), string(file), func(o *server.Options) {
		o.JetStream, o.TrustedKeys, o.AccountResolver = false, []string{operatorKey}, accounts
	}
}

// Every way to log in gets in, and a wrong one reads as what it is.
func TestLogins(t *testing.T) {
	t.Parallel()
	public, seed, creds, trust := user(t)
	_, otherSeed, otherCreds, _ := user(t)
	secret := value.NewSecret
	for name, c := range map[string]struct {
		server       func(*server.Options)
		right, wrong nats.Connection
	}{
		"password": {func(o *server.Options) { o.Username, o.Password = "u", password },
			nats.Connection{User: value.NewText("u"), Password: secret(password)}, nats.Connection{User: value.NewText("u"), Password: secret("x" + password)}},
		"token": {func(o *server.Options) { o.Authorization = password },
			nats.Connection{Token: secret(password)}, nats.Connection{Token: secret("x" + password)}},
		"nkey": {func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} },
			nats.Connection{NKey: secret(seed)}, nats.Connection{NKey: secret(otherSeed)}},
		"credentials": {trust, nats.Connection{Credentials: secret(creds)}, nats.Connection{Credentials: secret(otherCreds)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, c.server)
			for _, conn := range []nats.Connection{c.right, c.wrong, {}} {
				conn.URLs = []string{s.URL}
				if faults := conn.Validate(); len(faults) > 0 {
					t.Fatal(faults)
				}
				err := dial(t, &conn)
				if conn.Token == c.right.Token && conn.Password == c.right.Password && conn.NKey == c.right.NKey && conn.Credentials == c.right.Credentials {
					if err != nil {
						t.Errorf("it does not get in: %v", err)
					}
				} else if err == nil || !strings.Contains(err.Error(), "refused the login: check user and password") || strings.Contains(err.Error(), password) {
					t.Errorf("a wrong login: %v", err)
				}
			}
		})
	}
}

func dial(t *testing.T, c *nats.Connection) error {
	t.Helper()
	opts, err := c.Options("test", nats.NewWatch(nil, nil))
	if err != nil {
		return err
	}
	conn, err := c.Dial(t.Context(), opts)
	if err == nil {
		conn.Close()
	}
	return err
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority := sinktest.NewAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := natstest.Start(t, func(o *server.Options) {
		o.TLSConfig, o.TLS, o.TLSTimeout = authority.Server("nats.example", time.Hour), true, 10
		o.TLSConfig.NextProtos = nil
	})
	for name, c := range map[string]struct {
		tls  *value.TLS
		want string
	}{
		"trusted":    {&value.TLS{CA: ca, ServerName: "nats.example"}, ""},
		"other name": {&value.TLS{CA: ca}, "is not trusted: check tls.ca and tls.server_name"},
		"other ca":   {&value.TLS{ServerName: "nats.example"}, "is not trusted: check tls.ca and tls.server_name"},
		"insecure":   {&value.TLS{Insecure: true}, ""},
		"no file":    {&value.TLS{CA: ca + "x"}, "tls.ca: open"},
	} {
		err := dial(t, &nats.Connection{URLs: []string{s.URL}, TLS: c.tls})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// The files of tls are replaced before a connection is made, or made again: it uses what
// they hold then.
func TestTLSReplaced(t *testing.T) {
	t.Parallel()
	old, fresh := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	s := natstest.Start(t, func(o *server.Options) { o.TLSConfig, o.TLS, o.TLSTimeout = fresh.MutualServer("127.0.0.1"), true, 10 })
	c, dir := nats.Connection{URLs: []string{s.URL}, TLS: &value.TLS{}}, t.TempDir()
	cert, key := old.Client("sluice")
	c.TLS.CA, c.TLS.Cert, c.TLS.Key = old.Install(dir, cert, key)
	opts, err := c.Options("test", nats.NewWatch(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	cert, key = fresh.Client("sluice")
	fresh.Install(dir, cert, key)
	conn, err := c.Dial(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Dial does not outlast its context, whoever holds the line.
func TestDialEnds(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	p := natstest.NewProxy(t, s)
	p.Mute()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := nats.Connection{URLs: []string{p.URL}}
	opts, err := c.Options("test", nats.NewWatch(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Dial(ctx, opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial returned %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	_, seed, creds, _ := user(t)
	secret := value.NewSecret
	for want, c := range map[string]nats.Connection{
		"urls is missing":                   {},
		"urls[0] is not the address":        {URLs: []string{"127.0.0.1:4222"}},
		"urls[1] is not the address":        {URLs: []string{"nats://a", "http://a"}},
		"urls[0] holds a user or a token":   {URLs: []string{"nats://u:p@a"}},
		"user and password belong together": {URLs: []string{"nats://a"}, User: value.NewText("u")},
		"user is one of several logins":     {URLs: []string{"nats://a"}, Token: secret("t"), NKey: secret(seed)},
		"nkey is not the seed of a user":    {URLs: []string{"nats://a"}, NKey: secret("SUxyz")},
		"credentials does not hold":         {URLs: []string{"nats://a"}, Credentials: secret("/path/user.creds")},
		"tls has one of cert and key":       {URLs: []string{"nats://a"}, TLS: &value.TLS{Cert: "c"}},
		"tls.insecure makes ca us":          {URLs: []string{"nats://a"}, TLS: &value.TLS{CA: "c", Insecure: true}},
		"":                                  {URLs: []string{"nats://a", "tls://b:4222", "wss://c"}, Credentials: secret(creds), TLS: &value.TLS{}},
	} {
		faults := c.Validate()
		if want == "" && len(faults) == 0 {
			continue
		}
		if want == "" || len(faults) != 1 || !strings.HasPrefix(faults[0].Key+" "+faults[0].Msg, want) {
			t.Errorf("%v, want %q", faults, want)
		}
		if text := fmt.Sprint(faults); strings.Contains(text, seed) {
			t.Error("a fault shows the seed")
		}
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string][2]bool{ // to publish to, and to subscribe to
		"a": {true, true}, "a.b-c_d/ü": {true, true}, "a.*": {false, true}, "a.>": {false, true}, ">": {false, true}, "a*": {true, true},
		"": {}, ".": {}, "a.": {}, ".a": {}, "a..b": {}, "a b": {}, "a\tb": {}, "a\x00": {}, ">.a": {}, "\xff": {}, strings.Repeat("a", 1025): {},
	} {
		if got := [2]bool{nats.SubjectFault(subject, false) == "", nats.SubjectFault(subject, true) == ""}; got != want {
			t.Errorf("%q: %v, want %v", subject, got, want)
		}
	}
	for name, want := range map[string]bool{"ORDERS": true, "a-b_c": true, "": false, "a.b": false, "a b": false, "*": false, "a/b": false} {
		if nats.IsName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
