package sources

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/tidwall/gjson"

	"sluice/config/value"
)

// What strangers may send before anybody has looked at who they are.

// Whatever stands in the head of a request that nobody signed, nothing gets through.
// DATE and TIME stand for now, so that the rest is looked at too.
func FuzzS3Head(f *testing.F) {
	const auth = "AWS4-HMAC-SHA256 Credential=uploader/DATE/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
	f.Add("PUT", "/uploads/k", auth, "TIME", "UNSIGNED-PAYLOAD", `"0123456789abcdef0123456789abcdef-2"`)
	f.Add("GET", "/uploads?list-type=2&prefix=%zz", "AWS4-HMAC-SHA256 Credential=uploader/////, SignedHeaders=;,Signature=", "x", "", "")
	f.Add("POST", "/uploads/?delete", "AWS AKIA:sig", "", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "*")
	f.Add("PUT", "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=uploader%2FDATE%2Fr%2Fs3%2Faws4_request&X-Amz-Date=TIME&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00", "", "", "", "")
	f.Fuzz(func(t *testing.T, method, target, auth, date, payload, tags string) {
		now := time.Now().UTC()
		filled := strings.NewReplacer("DATE", now.Format("20060102"), "TIME", now.Format("20060102T150405Z"))
		u, err := url.ParseRequestURI(filled.Replace(target))
		if err != nil || strings.ContainsAny(method, " \r\n") {
			return
		}
		r := &http.Request{
			Method: method, URL: u, Host: "127.0.0.1", RequestURI: target, Body: io.NopCloser(strings.NewReader("body")), ContentLength: 4,
			Header: http.Header{"Authorization": {filled.Replace(auth)}, "X-Amz-Date": {filled.Replace(date)}, "X-Amz-Content-Sha256": {payload}, "If-Match": {tags}},
		}
		denied := 0
		front := &s3Front{
			library: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s %q gets through with %q", method, u, auth) }),
			keys:    new(atomic.Pointer[s3Keys]),
			limits:  (S3Serve{}).orDefault().Limits, log: slog.New(slog.DiscardHandler), observe: func(Outcome, int) { denied++ },
		}
		front.keys.Store(&s3Keys{"uploader": value.NewSecret("a secret that is nowhere")})
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		if w.Code/100 != 4 || denied != 1 {
			t.Errorf("%s %q: %d, counted %d times", method, u, w.Code, denied)
		}
		// What only the library would see of a request that is signed.
		_ = checkRequest(r)
		if sig, ok := readSignature(r); ok && sig.accessKey != "" && !strings.Contains(r.Header.Get("Authorization")+u.Query().Get("X-Amz-Credential"), sig.accessKey) {
			t.Errorf("the access key %q is nowhere", sig.accessKey)
		}
		if !strings.Contains(tags, "-") && libraryTags(tags) != tags {
			t.Errorf("the tags %q become %q", tags, libraryTags(tags))
		}
	})
}

// roundTrip is a far side.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Do is that of a client.
func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

func answering(body, contentType string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
}

// Whatever a message says and whatever stands where it says that its certificate is,
// it is not taken for one of SNS, and nobody but SNS is asked.
func FuzzSNS(f *testing.F) {
	const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	f.Add(`{"Type":"Notification","TopicArn":"arn:t","SignatureVersion":"1","Signature":"AAAA","SigningCertURL":"https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem"}`, pem)
	f.Add(`{"Type":"SubscriptionConfirmation","TopicArn":"arn:t","SubscribeURL":"https://sns.us-east-1.amazonaws.com@127.0.0.1/?Action=ConfirmSubscription","SignatureVersion":"2","Signature":"","SigningCertURL":"https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-a/../x.pem"}`, "x")
	f.Add(`{"Type":"UnsubscribeConfirmation","TopicArn":"arn:t","SignatureVersion":"2","Signature":"AA==","SigningCertURL":"HTTPS://SNS.us-east-1.amazonaws.com.cn/SimpleNotificationService-.pem#a"}`, pem+pem)
	sns := regexp.MustCompile(`^https://sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/`)
	f.Fuzz(func(t *testing.T, message, cert string) {
		door := newSNSDoor([]string{"arn:t"}, nil)
		door.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if !sns.MatchString(r.URL.String()) || r.Method != http.MethodGet || r.URL.User != nil || r.Host != "" && r.Host != r.URL.Host {
				t.Errorf("%s %s is asked", r.Method, r.URL)
			}
			return answering(cert, "text/plain")(r)
		})
		m := readSNS(gjson.Parse(message))
		if err := door.verify(t.Context(), m); err == nil {
			t.Errorf("%s is taken for a message of SNS", message)
		}
		// Only after verify, but it must not trust either.
		_ = door.confirm(t.Context(), m)
		if c, err := parseCertificate([]byte(cert)); (c == nil) == (err == nil) {
			t.Errorf("%q gives %v and %v", cert, c, err)
		}
	})
}

// Whatever a replication connection brings, nothing is confirmed that was not
// published, and the end of the log never goes back.
func FuzzPostgresFrame(f *testing.F) {
	all := readCapture(f)
	frame := func(lsn uint64, msg []byte) []byte {
		b := binary.BigEndian.AppendUint64([]byte{'w'}, lsn)
		return append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, lsn), 0), msg...)
	}
	for _, c := range all {
		f.Add(frame(uint64(c.lsn), c.msg))
	}
	f.Add(append(binary.BigEndian.AppendUint64([]byte{'k'}, 1<<40), make([]byte, 9)...))
	f.Add(append(binary.BigEndian.AppendUint64([]byte{'k'}, 1<<63), 0, 0, 0, 0, 0, 0, 0, 0, 1))
	f.Add([]byte("w"))
	f.Fuzz(func(t *testing.T, data []byte) {
		st := &pgStream{postgres: &postgres{}, queue: newPgQueue(), decoder: *testDecoder(), poke: make(chan struct{}, 1)}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		defer st.queue.wake(ctx)()
		for _, c := range all {
			if err := st.receive(ctx, frame(uint64(c.lsn), c.msg)); err != nil {
				t.Fatal(err)
			}
		}
		end := st.end.Load()
		err := st.receive(ctx, data)
		if st.end.Load() < end {
			t.Errorf("the end went from %x to %x", end, st.end.Load())
		}
		if st.durable.Load() != 0 {
			t.Errorf("%x is confirmed and nothing was published", st.durable.Load())
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q fills the queue", data)
		}
	})
}

// Whatever a server answers to a poll, what comes of it is a list of objects with keys.
func FuzzS3Listing(f *testing.F) {
	f.Add(`<ListBucketResult><Name>in</Name><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>` +
		`<Contents><Key>a%2Fb+c</Key><Size>3</Size><ETag>"x"</ETag><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents></ListBucketResult>`)
	f.Add(`<ListBucketResult><Name>in</Name><EncodingType>url</EncodingType><Contents><Key>%zz</Key><Size>-1</Size></Contents></ListBucketResult>`)
	f.Add(`<html>`)
	f.Fuzz(func(t *testing.T, answer string) {
		client := s3.New(s3.Options{
			Region: "r", BaseEndpoint: aws.String("http://127.0.0.1"), UsePathStyle: true, Retryer: aws.NopRetryer{},
			Credentials: aws.AnonymousCredentials{}, HTTPClient: answering(answer, "application/xml"),
		})
		p := &s3Poller{set: S3Poll{S3Remote: S3Remote{Bucket: "in"}}}
		page, err := p.list(t.Context(), client, "after", nil)
		if err != nil {
			return
		}
		if slices.ContainsFunc(page.objects, func(o seenObject) bool { return o.key == "" }) || page.token != nil && !strings.Contains(answer, "NextContinuationToken") {
			t.Errorf("%q is the page %+v", answer, page)
		}
	})
}

// Whatever a queue answers, each message of it becomes an event or a dead letter, and
// none is counted as held when all are through.
func FuzzSQSAnswer(f *testing.F) {
	f.Add(`{"Messages":[{"MessageId":"1","ReceiptHandle":"r","Body":"{}","Attributes":{"SentTimestamp":"1"},"MessageAttributes":{"a":{"DataType":"String","StringValue":"b"}}}]}`)
	f.Add(`{"Messages":[{"ReceiptHandle":"r","Body":"one"},{"ReceiptHandle":"r","Body":"two"},{}]}`)
	f.Add(`{"Messages":[null]}`)
	f.Fuzz(func(t *testing.T, answer string) {
		source := &sqsSource{settings: NewSQS(), queue: "http://127.0.0.1/1/q", mapping: sqsMapping{queue: "sqs://h/1/q", typ: "sqs.message"}}
		source.client = sqs.New(sqs.Options{
			Region: "r", BaseEndpoint: aws.String("http://127.0.0.1"), Retryer: aws.NopRetryer{}, DisableMessageChecksumValidation: true,
			Credentials: aws.AnonymousCredentials{}, HTTPClient: answering(answer, "application/x-amz-json-1.0"),
		})
		r := &sqsRun{source: source, held: map[string]*sqsHeld{}}
		messages, err := r.receive(t.Context())
		if err != nil {
			return
		}
		for i := range messages {
			e, err := source.mapping.event(&messages[i])
			if err != nil {
				if source.mapping.reject(&messages[i], err).Event("q").ID() == "" {
					t.Errorf("%q has a dead letter without an id", answer)
				}
			} else if e.ID() == "" {
				t.Errorf("%q is an event without an id", answer)
			}
		}
		if r.drop(messages); r.bytes != 0 || len(r.held) != 0 {
			t.Errorf("%q: %d bytes of %d messages are held when all are through", answer, r.bytes, len(r.held))
		}
	})
}

// Whatever a caller asks for, it waits no longer than it may, and is allowed no more
// than was configured.
func FuzzAsked(f *testing.F) {
	f.Add("wait=10", "events.example.com", "120")
	f.Add(`respond-async, WAIT = "3" ; a=b, wait=99999999999`, "*", "-1")
	f.Add("wait=-1", "EVENTS.example.com\r\nX: y", "+7")
	f.Fuzz(func(t *testing.T, prefer, origin, rate string) {
		if wait := preferredWait(http.Header{"Prefer": {prefer}}); wait < 0 || wait > MaxWait {
			t.Errorf("%q waits %s", prefer, wait)
		}
		h := &Handshake{Origins: []string{"events.example.com"}, Rate: value.Rate{Count: 60, Per: time.Minute}}
		answer := http.Header{}
		h.answer(answer, http.Header{"Webhook-Request-Origin": {origin}, "Webhook-Request-Rate": {rate}})
		allowed, perMinute := answer.Get("Webhook-Allowed-Origin"), answer.Get("Webhook-Allowed-Rate")
		if allowed != "" && !strings.EqualFold(allowed, "events.example.com") || (allowed == "") != (perMinute == "") {
			t.Errorf("%q may send as %q, %q a minute", origin, allowed, perMinute)
		}
		var n int
		if perMinute != "" && (json.NewDecoder(bytes.NewBufferString(perMinute)).Decode(&n) != nil || n < 1 || n > 60) {
			t.Errorf("%q: %q a minute", rate, perMinute)
		}
	})
}
