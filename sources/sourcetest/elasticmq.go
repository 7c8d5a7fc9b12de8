package sourcetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// ElasticMQ is a real server with the API of Amazon SQS, on a free port of the loopback
// interface. Its queues and messages are in files, and there again after a crash.
type ElasticMQ struct {
	*sqs.Client
	URL string // without a slash at the end

	dir, libs string
	port      int
	cmd       *exec.Cmd
}

// NewElasticMQ starts a server that ends with the test. Without SLUICE_INTEGRATION=1,
// or without a server to run, the test is skipped; with CI=true a missing server is a
// failure. SLUICE_ELASTICMQ_LIBS names the directory with its jars, see
// sources/testdata/elasticmq/pom.xml.
func NewElasticMQ(t testing.TB) *ElasticMQ {
	t.Helper()
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("needs a real ElasticMQ: set SLUICE_INTEGRATION=1")
	}
	libs := os.Getenv("SLUICE_ELASTICMQ_LIBS")
	if _, err := exec.LookPath("java"); err != nil || libs == "" {
		const missing = "ElasticMQ needs java in PATH and SLUICE_ELASTICMQ_LIBS with its jars, see sources/testdata/elasticmq/pom.xml"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	port := freePort(t)
	m := &ElasticMQ{URL: "http://127.0.0.1:" + strconv.Itoa(port), dir: t.TempDir(), libs: libs, port: port}
	m.Client = sqs.New(sqs.Options{
		Region: "elasticmq", BaseEndpoint: aws.String(m.URL),
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	conf := fmt.Sprintf(`include classpath("application.conf")
node-address { protocol = http, host = "127.0.0.1", port = %[1]d, context-path = "" }
rest-sqs { enabled = true, bind-hostname = "127.0.0.1", bind-port = %[1]d, sqs-limits = strict }
rest-stats { enabled = false }
queues-storage { enabled = true, path = %[2]q }
messages-storage { enabled = true, uri = "jdbc:h2:%[3]s;WRITE_DELAY=0" }
`, port, filepath.Join(m.dir, "queues.conf"), filepath.Join(m.dir, "messages"))
	if err := os.WriteFile(filepath.Join(m.dir, "server.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Crash)
	m.Start(t)
	return m
}

// Start starts the server, again after Crash, and waits until it answers.
func (m *ElasticMQ) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	m.cmd = exec.Command("java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", //nolint:gosec // of a test
		"-Dconfig.file="+filepath.Join(m.dir, "server.conf"), "-cp", filepath.Join(m.libs, "*"), "org.elasticmq.server.Main")
	m.cmd.Dir, m.cmd.Stdout, m.cmd.Stderr = m.dir, log, log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := m.ListQueues(ctx, &sqs.ListQueuesInput{}, func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(m.dir, "log"))
			t.Fatalf("ElasticMQ does not start: %v\n%s", err, text[max(0, len(text)-4000):])
		}
	}
}

// Crash kills the server.
func (m *ElasticMQ) Crash() {
	if m.cmd != nil && m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
}

// Queue makes a queue and gives its URL. The name of a FIFO queue ends in .fifo.
func (m *ElasticMQ) Queue(t testing.TB, name string) string {
	t.Helper()
	in := &sqs.CreateQueueInput{QueueName: &name}
	if filepath.Ext(name) == ".fifo" {
		in.Attributes = map[string]string{"FifoQueue": "true"}
	}
	out, err := m.CreateQueue(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.QueueUrl)
}

// Left counts the messages of a queue, those in hand included.
func (m *ElasticMQ) Left(t testing.TB, queue string) (n int) {
	t.Helper()
	out, err := m.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "NotVisible", "Delayed"} {
		some, err := strconv.Atoi(out.Attributes["ApproximateNumberOfMessages"+name])
		if err != nil {
			t.Fatal(err)
		}
		n += some
	}
	return n
}
