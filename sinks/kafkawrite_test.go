package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/bus"
	"sluice/config/kafka"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

func kafkaDeliveries(t *testing.T, n int, key func(int) string) (ds []sinks.Delivery) {
	t.Helper()
	for i := range n {
		e := kafkaEvent(t, fmt.Sprint(i), bus.Attr{Name: "partitionkey", Value: key(i)})
		ds = append(ds, sinks.Delivery{Event: e, ID: fmt.Sprint("d-", i), Attempt: 1})
	}
	return ds
}

// The partition of a key is that of Java clients: the hashes are those that
// org.apache.kafka.common.utils.UtilsTest expects.
func TestKafkaSinkPartitions(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t)
	sink := open(t, kafkaSettings(far))
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		d := sinks.Delivery{Event: kafkaEvent(t, `1`, bus.Attr{Name: "partitionkey", Value: key}), Attempt: 1}
		if err := sink.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if r, want := <-far.got, (hash&0x7fffffff)%3; r.partition != want {
			t.Errorf("%s went to partition %d, Java clients take %d", key, r.partition, want)
		}
	}
	s := kafkaSettings(far)
	s.Balancer = "round_robin"
	seen := map[int32]int{}
	if _, err := open(t, s).(sinks.BatchSink).DeliverBatch(t.Context(), kafkaDeliveries(t, 30, func(int) string { return "k" })); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		r := <-far.got
		seen[r.partition]++
	}
	if seen[0] != 10 || seen[1] != 10 || seen[2] != 10 {
		t.Errorf("round_robin: %v", seen)
	}
}

// Whatever a batch is compressed with, another client reads it.
func TestKafkaSinkCompression(t *testing.T) {
	t.Parallel()
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(4, orders))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			s := sinks.NewKafka()
			s.Brokers, s.Topic, s.Compression, s.MaxBytes = c.ListenAddrs(), orders, codec, 2<<10
			const n = 200
			ds := kafkaDeliveries(t, n, func(i int) string { return fmt.Sprint("k", i%7) })
			if _, err := open(t, s).(sinks.BatchSink).DeliverBatch(t.Context(), ds); err != nil {
				t.Fatal(err)
			}
			reader, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(orders))
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			last := map[string]int{}
			for read := 0; read < n; {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				fetches := reader.PollFetches(ctx)
				cancel()
				if err := fetches.Err(); err != nil {
					t.Fatal(err)
				}
				fetches.EachRecord(func(r *kgo.Record) {
					var i int
					if _, err := fmt.Sscan(string(r.Value), &i); err != nil {
						t.Error(err)
					}
					if before, ok := last[string(r.Key)]; ok && i != before+7 {
						t.Errorf("key %s: record %d came behind %d", r.Key, i, before)
					}
					last[string(r.Key)] = i
					read++
				})
			}
		})
	}
}

// A leader that moves costs time and no attempt.
func TestKafkaSinkLeaderMoves(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t)
	far.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 2})
	if err := open(t, kafkaSettings(far)).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1}); err != nil {
		t.Error(err)
	}
}

// A record that the broker does not take has the verdict for itself alone, and one
// partition's trouble is not another's.
func TestKafkaSinkRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse func(p int32, values []string) *kerr.Error
		want   func(i int, partition int32) string
	}{
		"one record": {
			func(_ int32, values []string) *kerr.Error {
				for _, v := range values {
					if v == "37" {
						return kerr.InvalidRecord
					}
				}
				return nil
			},
			func(i int, _ int32) string {
				if i == 37 {
					return "does not take the record"
				}
				return ""
			},
		},
		"many at once": {
			func(_ int32, values []string) *kerr.Error {
				if len(values) > 3 {
					return kerr.MessageTooLarge
				}
				return nil
			},
			func(int, int32) string { return "" },
		},
		"one partition": {
			func(p int32, _ []string) *kerr.Error {
				if p == 1 {
					return kerr.NotEnoughReplicas
				}
				return nil
			},
			func(_ int, p int32) string {
				if p == 1 {
					return "Not Enough Replicas"
				}
				return ""
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, orders))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			partition := map[string]int32{} // of each value that was written or refused
			written := map[string]int{}
			cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				req := r.(*kmsg.ProduceRequest)
				resp := req.ResponseKind().(*kmsg.ProduceResponse)
				for _, topic := range req.Topics {
					answer := kmsg.NewProduceResponseTopic()
					answer.Topic = topic.Topic
					for _, p := range topic.Partitions {
						var values []string
						for _, rec := range decodeBatch(t, p.Records) {
							values = append(values, string(rec.value))
							partition[string(rec.value)] = p.Partition
						}
						one := kmsg.NewProduceResponseTopicPartition()
						one.Partition = p.Partition
						if refused := c.refuse(p.Partition, values); refused != nil {
							one.ErrorCode = refused.Code
						} else {
							for _, v := range values {
								written[v]++
							}
						}
						answer.Partitions = append(answer.Partitions, one)
					}
					resp.Topics = append(resp.Topics, answer)
				}
				return resp, nil, true
			})
			s := sinks.NewKafka()
			s.Brokers, s.Topic = cluster.ListenAddrs(), orders
			ds := kafkaDeliveries(t, 100, func(i int) string { return fmt.Sprint("k", i%10) })
			failed, err := open(t, s).(sinks.BatchSink).DeliverBatch(t.Context(), ds)
			if err != nil {
				t.Fatal(err)
			}
			for i, err := range failed {
				value := fmt.Sprint(i)
				want := c.want(i, partition[value])
				if want == "" && (err != nil || written[value] != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("delivery %d: %v, want %q; written %d times", i, err, want, written[value])
				}
			}
		})
	}
}

// What is no Kafka, or Kafka spoken differently, is told apart.
func TestKafkaSinkStrangers(t *testing.T) {
	t.Parallel()
	authority := sinktest.NewAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	says := func(text string) []string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = io.WriteString(conn, text)
			}
		}()
		return []string{l.Addr().String()}
	}
	encrypted := newKafkaFar(t, kfake.TLS(authority.Server("127.0.0.1", time.Hour)))
	for name, c := range map[string]struct {
		brokers []string
		tls     *kafka.TLS
		want    string
	}{
		"trusted":        {encrypted.ListenAddrs(), &kafka.TLS{CA: ca}, ""},
		"not trusted":    {encrypted.ListenAddrs(), &kafka.TLS{}, "certificate is not trusted"},
		"wrong name":     {encrypted.ListenAddrs(), &kafka.TLS{CA: ca, ServerName: "else"}, "certificate is not trusted"},
		"hangs up":       {encrypted.ListenAddrs(), nil, "SASL/TLS settings"},
		"wants TLS":      {says("\x15\x03\x03\x00\x02\x02\x50"), nil, "set tls"},
		"no TLS there":   {says("\x00\x00\x00\x0a0123456789"), &kafka.TLS{CA: ca}, "does not speak TLS on this port"},
		"a web server":   {says("HTTP/1.1 400 Bad Request\r\n\r\n"), nil, "does not speak Kafka"},
		"silence":        {says(""), nil, "took the connection and does not answer"},
		"silence in TLS": {says(""), &kafka.TLS{CA: ca}, "does not take the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sinks.NewKafka()
			s.Brokers, s.Topic, s.TLS = c.brokers, orders, c.tls
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			err := open(t, s).Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A delivery that ran out of time says what kept it, and Close hangs up on a broker
// that keeps silent.
func TestKafkaSinkSilence(t *testing.T) {
	t.Parallel()
	authority := sinktest.NewAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	hungUp := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
				hungUp <- struct{}{}
			}()
		}
	}()
	// The cluster says that the silent one is the leader.
	far := newKafkaFar(t, kfake.TLS(authority.Server("127.0.0.1", time.Hour)))
	at := silent.Addr().(*net.TCPAddr)
	far.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		far.KeepControl()
		resp := r.ResponseKind().(*kmsg.MetadataResponse)
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = 7, "127.0.0.1", int32(at.Port) //nolint:gosec // a port
		topic, partition := kmsg.NewMetadataResponseTopic(), kmsg.NewMetadataResponseTopicPartition()
		partition.Leader = 7
		topic.Topic, topic.Partitions = kmsg.StringPtr(orders), append(topic.Partitions, partition)
		resp.Brokers, resp.Topics = append(resp.Brokers, broker), append(resp.Topics, topic)
		return resp, nil, true
	})
	s := kafkaSettings(far)
	s.TLS = &kafka.TLS{CA: ca}
	sink := open(t, s)
	deliver := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		return sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
	}
	if err := deliver(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want one that is context.DeadlineExceeded", err)
	}
	<-hungUp // so that the reason is known
	for limit := time.After(5 * time.Second); ; {
		err := deliver()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, want one that is context.DeadlineExceeded", err)
		}
		if strings.Contains(err.Error(), "last: broker "+silent.Addr().String()+": TLS handshake") {
			break
		}
		select {
		case <-limit:
			t.Fatalf("%v does not say what kept it", err)
		default:
		}
	}
}

// Close ends the connections, the one whose answer nobody waits for any more too.
func TestKafkaSinkClose(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	connected, hungUp := make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		close(connected)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		close(hungUp)
	}()
	s := sinks.NewKafka()
	s.Brokers, s.Topic = []string{silent.Addr().String()}, orders
	sink := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1}) }()
	<-connected
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want one that is context.Canceled", err)
	}
	if err := sink.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-hungUp:
	case <-time.After(5 * time.Second):
		t.Error("Close left a connection open")
	}
}

// When a broker goes away, the connections that were idle meanwhile do not make one
// delivery after the other fail.
func TestKafkaSinkIdleConnections(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t)
	sink := open(t, kafkaSettings(far))
	var delivering sync.WaitGroup
	for range 32 {
		delivering.Go(func() {
			for range 20 {
				if err := sink.Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	delivering.Wait()
	far.Close()
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
		cancel()
		if i > 2 && (err == nil || !strings.Contains(err.Error(), "connection refused")) {
			t.Errorf("delivery %d: %v", i, err)
		}
	}
}
