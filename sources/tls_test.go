package sources_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"sluice/config/kafka"
	"sluice/config/nats/natstest"
	"sluice/config/value"
	"sluice/sinks/sinktest"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// tlsFiles are an authority, what it signed for a client, and its configuration of a
// server at 127.0.0.1, which wants to see a certificate of a client.
type tlsFiles struct {
	ca, cert, key         string
	server                *tls.Config
	serverCert, serverKey []byte // of another such server
	client                *tls.Config
}

func newTLSFiles(t *testing.T) *tlsFiles {
	t.Helper()
	authority, dir := sinktest.NewAuthority(t), t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := authority.Client("sluice")
	f := &tlsFiles{ca: write("ca.pem", authority.PEM()), cert: write("cert.pem", cert), key: write("key.pem", key)}
	f.server = authority.Server("127.0.0.1", time.Hour)
	f.serverCert, f.serverKey = authority.ServerPEM("127.0.0.1", time.Hour)
	f.server.NextProtos, f.server.ClientAuth, f.server.ClientCAs = nil, tls.RequireAndVerifyClientCert, authority.Pool()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	f.client = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authority.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{pair}}
	return f
}

// ours are the settings that get in.
func (f *tlsFiles) ours() *value.TLS { return &value.TLS{CA: f.ca, Cert: f.cert, Key: f.key} }

// The source reads through TLS, with a certificate of its own and with a login inside,
// and says what it does not trust and what the broker does not.
func TestKafkaTLS(t *testing.T) {
	t.Parallel()
	f, other := newTLSFiles(t), newTLSFiles(t)
	const password = "pa55word-marker"
	login := func(password string) *kafka.SASL {
		return &kafka.SASL{Mechanism: kafka.ScramSHA256, User: value.NewText("u"), Password: value.NewSecret(password)}
	}
	for name, c := range map[string]struct {
		sasl   bool
		change func(*sources.Kafka)
		want   string // in what it says; "" when it reads
	}{
		"certificate":       {false, func(*sources.Kafka) {}, ""},
		"login":             {true, func(s *sources.Kafka) { s.SASL = login(password) }, ""},
		"wrong login":       {true, func(s *sources.Kafka) { s.SASL = login(password + "x") }, "check user, password and the SASL/TLS settings"},
		"no certificate":    {false, func(s *sources.Kafka) { s.TLS = &value.TLS{CA: f.ca} }, "check tls.cert and tls.key"},
		"other certificate": {false, func(s *sources.Kafka) { s.TLS = &value.TLS{CA: f.ca, Cert: other.cert, Key: other.key} }, "check tls.cert and tls.key"},
		"not trusted":       {false, func(s *sources.Kafka) { s.TLS.CA = other.ca }, "certificate is not trusted"},
		"wrong name":        {false, func(s *sources.Kafka) { s.TLS.ServerName = "kafka.example.com" }, "certificate is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, clicks), kfake.TLS(f.server.Clone())}
			client := []kgo.Opt{kgo.DefaultProduceTopic(clicks), kgo.DialTLSConfig(f.client)}
			if c.sasl {
				opts = append(opts, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", password))
				client = append(client, kgo.SASL(scram.Auth{User: "u", Pass: password}.AsSha256Mechanism()))
			}
			cluster, err := kfake.NewCluster(opts...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			s := sources.NewKafka()
			s.Brokers, s.Topics, s.Group, s.TLS = cluster.ListenAddrs(), []string{clicks}, kafkaGroup, f.ours()
			c.change(s)
			host, pub := sourcetest.NewHost(t), &sourcetest.Publisher{}
			run := runKafka(t, host.Open(t, s), pub)
			if c.want != "" {
				said := saidBy(t, host, run, c.want)
				if strings.Contains(fmt.Sprintf("%v %+v %q", said, said, said), password) {
					t.Errorf("the password shows in %v", said)
				}
				return
			}
			writer, err := kgo.NewClient(append(client, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if err := writer.ProduceSync(t.Context(), kgo.StringRecord(`{"a": 1}`)).FirstErr(); err != nil {
				t.Fatal(err)
			}
			kafkaUntil(t, "the event of the record", func() bool { return len(pub.Stored()) == 1 })
		})
	}
}

// saidBy waits until a source says that, in what it reports or by ending.
func saidBy(t *testing.T, host *sourcetest.Host, run *kafkaRunner, want string) (said error) {
	t.Helper()
	limit := time.After(kafkaPatience)
	for said == nil || !strings.Contains(said.Error(), want) {
		select {
		case <-limit:
			t.Fatalf("the source says %v, want an error with %q", said, want)
		case <-time.After(5 * time.Millisecond):
		}
		if said = host.Reported(); run.ended() {
			said = run.wait()
		}
	}
	t.Log(said)
	return said
}

// The source reads a stream through TLS, with a certificate of its own.
func TestNATSTLS(t *testing.T) {
	t.Parallel()
	f := newTLSFiles(t)
	s := natstest.Start(t, func(o *server.Options) {
		o.TLSConfig, o.TLS, o.TLSVerify, o.TLSTimeout = f.server, true, true, 10
	})
	_, js := s.Client(t, natsgo.Secure(f.client))
	for name, c := range map[string]struct {
		tls  *value.TLS
		want string
	}{
		"certificate":    {f.ours(), ""},
		"no certificate": {&value.TLS{CA: f.ca}, "check tls.cert and tls.key"},
	} {
		settings := natsSettings(s)
		settings.TLS = c.tls
		host, pub := sourcetest.NewHost(t), &sourcetest.Publisher{}
		stop, ended := natsRunning(t, host.Open(t, settings), pub)
		if c.want != "" {
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: Run returned %v, want %q", name, err, c.want)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("%s: Run does not return; reported %v", name, host.Reported())
			}
			continue
		}
		natsUntil(t, "the stream is there", func() bool {
			_, err := js.Publish(t.Context(), natsSubject, []byte("x"))
			return err == nil
		})
		natsUntil(t, "the message arrives", func() bool { return len(pub.Stored()) > 0 })
		if err := stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// With sslmode=verify-full the changes come through TLS, from the server that the
// certificate names and from no other.
func testPostgresTLS(t *testing.T, server *sourcetest.Postgres) {
	f, other := newTLSFiles(t), newTLSFiles(t)
	server.Secure(t, f.serverCert, f.serverKey)
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`)
	prepare(t, server, db)
	with := func(ca, host string) *sources.Postgres {
		s := pgSettings(server, db)
		dsn := strings.Replace(server.DSN(db), "sslmode=disable", "sslmode=verify-full&sslrootcert="+url.QueryEscape(ca), 1)
		s.DSN = value.NewSecret(strings.Replace(dsn, "127.0.0.1", host, 1))
		return s
	}
	r := runPostgres(t, sourcetest.NewHost(t), with(f.ca, "127.0.0.1"), nil)
	server.Exec(t, db, `INSERT INTO a VALUES (1)`)
	r.until(t, 1)
	if got := server.Get(t, db, `SELECT s.ssl FROM pg_stat_ssl s JOIN pg_replication_slots r ON r.active_pid = s.pid WHERE r.slot_name = 'slot_`+db+`'`); got != "true" {
		t.Errorf("the changes come through TLS: %q", got)
	}
	r.stop(t)
	for name, s := range map[string]*sources.Postgres{"another authority": with(other.ca, "127.0.0.1"), "another name": with(f.ca, "localhost")} {
		ctx, cancel := context.WithCancel(t.Context())
		host, ended := sourcetest.NewHost(t), make(chan error, 1)
		src := host.Open(t, s)
		go func() { ended <- src.Run(ctx, &sourcetest.Publisher{}) }()
		var said error
		eventually(t, func() string { return fmt.Sprintf("%s: it says %v", name, said) }, func() bool {
			if said = host.Reported(); len(ended) > 0 {
				said = <-ended
				ended <- said
			}
			return said != nil && strings.Contains(said.Error(), "certificate")
		})
		if strings.Contains(said.Error(), sourcetest.PostgresPassword) {
			t.Errorf("%s: the error shows the password: %v", name, said)
		}
		t.Logf("%s: %v", name, said)
		cancel()
		<-ended
	}
}
