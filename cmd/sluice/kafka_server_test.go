package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/sinks/sinktest"
)

// The users of the broker's second listener.
const (
	kafkaUser     = "alice"
	kafkaPassword = "pa55word-marker"
)

// kafkaServer is a real Apache Kafka: one node that is broker and controller, on
// ports of the loopback interface and a directory of its own.
type kafkaServer struct {
	t         *testing.T
	classPath string
	dir       string
	plain     string // the address without a login
	sasl      string // the address with one
	secure    string // the address with one, through TLS
	ca        string // the file of the authority that signed its certificate
	cmd       *exec.Cmd
	log       *lockedBuffer
}

// newKafkaServer starts a broker. SLUICE_KAFKA_LIBS names the directory with its
// jars, see testdata/kafka/pom.xml.
func newKafkaServer(t *testing.T) *kafkaServer {
	t.Helper()
	if !full() {
		t.Skip("set SLUICE_INTEGRATION=1 to run against a real Apache Kafka")
	}
	libs := os.Getenv("SLUICE_KAFKA_LIBS")
	java, err := exec.LookPath("java")
	if libs == "" || err != nil {
		missing(t, "Apache Kafka needs java in PATH and SLUICE_KAFKA_LIBS with its jars, see cmd/sluice/testdata/kafka/pom.xml")
	}
	k := &kafkaServer{
		t: t, classPath: filepath.Join(libs, "*"), dir: t.TempDir(), log: &lockedBuffer{},
		plain: fmt.Sprintf("127.0.0.1:%d", freePort(t)), sasl: fmt.Sprintf("127.0.0.1:%d", freePort(t)), secure: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
	}
	k.configure()
	format := exec.Command(java, "-cp", k.classPath, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk",
		"-c", k.file(), "--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", kafkaUser, kafkaPassword),
		"--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", kafkaUser, kafkaPassword))
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format the broker's directory: %v\n%s", err, out)
	}
	t.Cleanup(k.kill)
	k.start()
	return k
}

// missing fails where everything must run, and skips elsewhere.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func (k *kafkaServer) file() string { return filepath.Join(k.dir, "server.properties") }

func (k *kafkaServer) configure() {
	k.t.Helper()
	authority := sinktest.NewAuthority(k.t)
	cert, key := authority.ServerPEM("127.0.0.1", time.Hour)
	store := filepath.Join(k.dir, "server.pem")
	k.ca = filepath.Join(k.dir, "ca.pem")
	if err := errors.Join(os.WriteFile(store, append(key, cert...), 0o600), os.WriteFile(k.ca, authority.PEM(), 0o600)); err != nil {
		k.t.Fatal(err)
	}
	controller := fmt.Sprintf("127.0.0.1:%d", freePort(k.t))
	text := strings.NewReplacer("CONTROLLER_AT", controller, "PLAIN_AT", k.plain, "SASL_AT", k.sasl, "SECURE_AT", k.secure, "STORE", store,
		"DIR", filepath.Join(k.dir, "data"), "USER", kafkaUser, "PASSWORD", kafkaPassword).Replace(`
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@CONTROLLER_AT
listeners=PLAINTEXT://PLAIN_AT,SASL_PLAINTEXT://SASL_AT,SASL_SSL://SECURE_AT,CONTROLLER://CONTROLLER_AT
advertised.listeners=PLAINTEXT://PLAIN_AT,SASL_PLAINTEXT://SASL_AT,SASL_SSL://SECURE_AT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_USER="PASSWORD";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location=STORE
log.dirs=DIR
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
`)
	if err := os.WriteFile(k.file(), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// start runs the broker and waits until it answers.
func (k *kafkaServer) start() {
	k.t.Helper()
	k.cmd = exec.Command("java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", k.classPath, "kafka.Kafka", k.file())
	k.cmd.Stdout, k.cmd.Stderr = k.log, k.log
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	client := k.client()
	defer client.Close()
	limit := time.After(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := client.Ping(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-limit:
			log := k.log.String()
			k.t.Fatalf("Apache Kafka does not answer: %v\n%s", err, log[max(0, len(log)-4000):])
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kill ends the broker as a crash does.
func (k *kafkaServer) kill() {
	if k.cmd == nil || k.cmd.ProcessState != nil {
		return
	}
	_ = k.cmd.Process.Kill()
	_ = k.cmd.Wait()
}

// client is a client of the broker that ends with the test.
func (k *kafkaServer) client(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.plain), kgo.MetadataMinAge(time.Second)}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(client.Close)
	return client
}

// create makes topics with that many partitions.
func (k *kafkaServer) create(partitions int32, topics ...string) {
	k.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 20_000
	for _, name := range topics {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
		req.Topics = append(req.Topics, topic)
	}
	resp, err := req.RequestWith(k.t.Context(), k.client())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, topic := range resp.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			k.t.Fatalf("create %s: %v", topic.Topic, err)
		}
	}
}

// remove deletes a topic.
func (k *kafkaServer) remove(topic string) {
	k.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 20_000
	req.TopicNames = []string{topic}
	req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	if _, err := req.RequestWith(k.t.Context(), k.client()); err != nil {
		k.t.Fatal(err)
	}
}

// kcat runs the other client.
func (k *kafkaServer) kcat(input string, args ...string) []byte {
	k.t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		missing(k.t, "kcat is not installed")
	}
	cmd := exec.Command(path, append([]string{"-b", k.plain}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatalf("kcat %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// logged is how many events are in the log, repetitions and all.
func (p *program) logged() (n int) {
	p.t.Helper()
	from := ""
	for {
		var page struct {
			Events []struct{ ID string }
			Next   string
		}
		p.get("/api/v1/events?limit=1000&from="+from, &page)
		if n += len(page.Events); page.Next == "" {
			return n
		}
		from = page.Next
	}
}

// refused waits until the program says that Kafka does not take its login.
func (p *program) refused(mechanism string) {
	p.t.Helper()
	p.until(30*time.Second, mechanism+" is refused", func() bool { return strings.Contains(p.log.String(), "check user and password (sasl)") })
	line := p.log.String()
	p.t.Logf("%s: %.200s", mechanism, line[strings.Index(line, "the broker refused"):])
}

// keepsSecret checks that the program has not written down the password.
func (p *program) keepsSecret() {
	p.t.Helper()
	if strings.Contains(p.log.String(), kafkaPassword) {
		p.t.Error("the password is in the log")
	}
}

// installed is the path of a program that go installs: what the variable names, or what
// is in PATH.
func installed(t *testing.T, program, variable, module string) string {
	t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv(variable), program))
	if err != nil {
		missing(t, fmt.Sprintf("there is no %s in PATH or %s: go install %s", program, variable, module))
	}
	return path
}
