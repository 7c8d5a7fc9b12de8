package sources

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // SNS signs with it in version 1
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
)

const snsTopic = "arn:aws:sns:eu-central-1:123456789012:uploads"

// fakeSNS signs like SNS, with a certificate of its own, and counts who asks for it
// and who confirms.
type fakeSNS struct {
	*httptest.Server
	key       *rsa.PrivateKey
	cert      []byte
	certGets  atomic.Int32
	confirmed atomic.Int32
	status    atomic.Int32 // of confirmations
}

func newFakeSNS(t *testing.T, notAfter time.Time) *fakeSNS {
	t.Helper()
	s := &fakeSNS{}
	s.status.Store(http.StatusOK)
	var err error
	if s.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sns.amazonaws.com"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &s.key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /SimpleNotificationService-0123.pem", func(w http.ResponseWriter, _ *http.Request) {
		s.certGets.Add(1)
		_, _ = w.Write(s.cert)
	})
	mux.HandleFunc("GET /SimpleNotificationService-bad.pem", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<ErrorResponse>" + string(s.cert)))
	})
	mux.HandleFunc("GET /SimpleNotificationService-away.pem", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/SimpleNotificationService-0123.pem", http.StatusFound)
	})
	mux.HandleFunc("GET /confirm", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("Token") == "tok" {
			s.confirmed.Add(1)
		}
		w.WriteHeader(int(s.status.Load()))
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *fakeSNS) host() string { return strings.TrimPrefix(s.URL, "https://") }

// message is a message with a good signature.
func (s *fakeSNS) message(t *testing.T, version string, change map[string]string) map[string]string {
	t.Helper()
	m := map[string]string{
		"Type": snsNotification, "MessageId": "m1", "TopicArn": snsTopic, "Subject": "Amazon S3 Notification",
		"Message":   `{"Records":[{"eventSource":"aws:s3","eventTime":"2026-01-02T03:04:05Z","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"a+b"}}}]}`,
		"Timestamp": "2026-01-02T03:04:05.678Z", "SignatureVersion": version,
		"SigningCertURL": s.URL + "/SimpleNotificationService-0123.pem", "UnsubscribeURL": s.URL + "/bye",
	}
	maps.Copy(m, change)
	s.sign(t, m)
	return m
}

func (s *fakeSNS) sign(t *testing.T, m map[string]string) {
	t.Helper()
	// Written out here once more: what is tested must not check itself.
	var text string
	for _, name := range []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
		if v, ok := m[name]; ok && (name != "Subject" || m["Type"] == snsNotification) {
			text += name + "\n" + v + "\n"
		}
	}
	hash, sum := crypto.SHA256, sha256.Sum256([]byte(text))
	digest := sum[:]
	if m["SignatureVersion"] == "1" {
		old := sha1.Sum([]byte(text)) //nolint:gosec // see above
		hash, digest = crypto.SHA1, old[:]
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, hash, digest)
	if err != nil {
		t.Fatal(err)
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(signature)
}

// snsSource is an s3 source that takes signed messages only.
type snsSource struct {
	door     http.Handler
	verifies bool
	mu       sync.Mutex
	stored   []bus.Event
	rejected []Rejected
	log      bytes.Buffer
}

func newSNSSource(t *testing.T, s *fakeSNS) *snsSource {
	t.Helper()
	src := &snsSource{}
	settings := NewS3()
	settings.Path, settings.SNS.Topics, settings.SNS.Hosts = "/in", []string{snsTopic}, []string{s.host()}
	sns := newSNSDoor(settings.SNS.Topics, settings.SNS.Hosts)
	sns.client.Transport = s.Client().Transport
	opened, err := settings.openDoor(Env{
		Log:    slog.New(slog.NewTextHandler(&src.log, nil)),
		Handle: func(d Door) error { src.door, src.verifies = d.Handler, d.Verifies; return nil },
		Reject: func(_ context.Context, r Rejected) error { src.rejected = append(src.rejected, r); return nil },
	}, sns)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- opened.Run(ctx, pubFunc(func(events []bus.Event) ([]bus.Result, error) {
			src.mu.Lock()
			defer src.mu.Unlock()
			src.stored = append(src.stored, events...)
			return make([]bus.Result, len(events)), nil
		}))
	}()
	t.Cleanup(func() { cancel(); <-ended })
	<-opened.(Readier).Ready()
	return src
}

func (s *snsSource) post(t *testing.T, m map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/in", bytes.NewReader(body))
	r.Header.Set("X-Amz-Sns-Message-Type", m["Type"])
	r.Header.Set("Content-Type", "text/plain; charset=UTF-8")
	w := httptest.NewRecorder()
	s.door.ServeHTTP(w, r)
	return w
}

func TestSNSNotification(t *testing.T) {
	t.Parallel()
	sns := newFakeSNS(t, time.Now().Add(time.Hour))
	src := newSNSSource(t, sns)
	if !src.verifies {
		t.Error("the door asks the listener for tokens, which SNS has not")
	}
	noSubject := sns.message(t, "2", nil)
	delete(noSubject, "Subject")
	sns.sign(t, noSubject)
	for name, m := range map[string]map[string]string{
		"version 1": sns.message(t, "1", nil), "version 2": sns.message(t, "2", nil), "no subject": noSubject,
	} {
		if w := src.post(t, m); w.Code != http.StatusAccepted {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(src.stored) != 3 || src.stored[0].Subject() != "a b" || src.stored[0].ID() != src.stored[2].ID() {
		t.Errorf("stored %v", src.stored)
	}
	if n := sns.certGets.Load(); n != 1 {
		t.Errorf("the certificate was fetched %d times", n)
	}
	if w := src.post(t, sns.message(t, "2", map[string]string{"Message": `{"Event":"s3:TestEvent"}`})); w.Code != http.StatusAccepted {
		t.Errorf("a test message: %d %s", w.Code, w.Body)
	}
	bridge := `{"detail-type":"Object Created","source":"aws.s3","time":"2026-01-02T03:04:05Z","detail":{"reason":"PutObject","bucket":{"name":"b"},"object":{"key":"a+b"}}}`
	if w := src.post(t, sns.message(t, "2", map[string]string{"Message": bridge})); w.Code != http.StatusAccepted || src.stored[3].Subject() != "a+b" {
		t.Errorf("EventBridge in SNS: %d %s", w.Code, w.Body)
	}
	for _, text := range []string{"hello", string(mustJSON(t, sns.message(t, "2", nil)))} {
		if w := src.post(t, sns.message(t, "2", map[string]string{"Message": text})); w.Code != http.StatusAccepted {
			t.Errorf("%.20s: %d %s", text, w.Code, w.Body)
		}
	}
	if len(src.rejected) != 2 || string(src.rejected[0].Data) != "hello" {
		t.Errorf("rejected %v", src.rejected)
	}
	// What is not signed has no other way in.
	r := httptest.NewRequest(http.MethodPost, "/in", strings.NewReader(`{"Records":[]}`))
	r.Header.Set("X-Amz-Sns-Message-Type", snsNotification)
	w := httptest.NewRecorder()
	if src.door.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("unsigned: %d %s", w.Code, w.Body)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Messages that SNS did not send, or not from the topic, or that would send requests
// elsewhere.
func TestSNSForged(t *testing.T) {
	t.Parallel()
	sns, other := newFakeSNS(t, time.Now().Add(time.Hour)), newFakeSNS(t, time.Now().Add(time.Hour))
	src := newSNSSource(t, sns)
	changed := func(name, text string) map[string]string {
		m := sns.message(t, "2", nil)
		m[name] = text
		return m
	}
	signed := func(name, text string) map[string]string { return sns.message(t, "2", map[string]string{name: text}) }
	host := sns.host()
	for name, test := range map[string]struct {
		m    map[string]string
		want string
	}{
		"another message":        {changed("Message", "{}"), "the signature is not that of SNS"},
		"another time":           {changed("Timestamp", "2027-01-02T03:04:05.678Z"), "the signature is not that of SNS"},
		"another id":             {changed("MessageId", "m2"), "the signature is not that of SNS"},
		"another subject":        {changed("Subject", "x"), "the signature is not that of SNS"},
		"another version":        {changed("SignatureVersion", "1"), "the signature is not that of SNS"},
		"no version":             {changed("SignatureVersion", ""), "is neither 1 nor 2"},
		"no base64":              {changed("Signature", "%"), "not base64"},
		"no signature":           {changed("Signature", ""), "the signature is not that of SNS"},
		"another topic":          {signed("TopicArn", snsTopic+"2"), "not in sns.topics"},
		"another type":           {signed("Type", "Surprise"), "no messages of type"},
		"the key of another":     {other.message(t, "2", map[string]string{"SigningCertURL": sns.URL + "/SimpleNotificationService-0123.pem"}), "the signature is not that of SNS"},
		"another host":           {other.message(t, "2", nil), "is not one of SNS"},
		"http":                   {signed("SigningCertURL", "http://"+host+"/SimpleNotificationService-0123.pem"), "is not a URL of SNS"},
		"no URL":                 {signed("SigningCertURL", "%"), "is not a URL of SNS"},
		"a user":                 {signed("SigningCertURL", "https://sns.us-east-1.amazonaws.com@"+host+"/SimpleNotificationService-0123.pem"), "is not a URL of SNS"},
		"another path":           {signed("SigningCertURL", sns.URL+"/evil.pem"), "not where SNS has its certificates"},
		"a query":                {signed("SigningCertURL", sns.URL+"/SimpleNotificationService-0123.pem?Action=x"), "not where SNS has its certificates"},
		"a deeper path":          {signed("SigningCertURL", sns.URL+"/SimpleNotificationService-/../evil.pem"), "not where SNS has its certificates"},
		"text with one inside":   {signed("SigningCertURL", sns.URL+"/SimpleNotificationService-bad.pem"), "is not a certificate"},
		"a host that looks like": {signed("SigningCertURL", "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-0123.pem"), "is not one of SNS"},
		"a bucket called sns":    {signed("SigningCertURL", "https://sns.s3.amazonaws.com/SimpleNotificationService-0123.pem"), "is not one of SNS"},
		"another service":        {signed("SigningCertURL", "https://sqs.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem"), "is not one of SNS"},
		"a port":                 {signed("SigningCertURL", "https://sns.us-east-1.amazonaws.com:444/SimpleNotificationService-0123.pem"), "is not one of SNS"},
		"a confirmation elsewhere": {sns.message(t, "2", map[string]string{
			"Type": snsSubscribe, "Token": "tok", "SubscribeURL": "https://169.254.169.254/latest/meta-data",
		}), "is not one of SNS"},
	} {
		w := src.post(t, test.m)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s: %d %s, want 403 and %q", name, w.Code, w.Body, test.want)
		}
	}
	if len(src.stored)+len(src.rejected) != 0 {
		t.Errorf("stored %v, rejected %v", src.stored, src.rejected)
	}
	if w := src.post(t, signed("SigningCertURL", sns.URL+"/SimpleNotificationService-away.pem")); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a redirect: %d %s", w.Code, w.Body)
	}
	if strings.Count(src.log.String(), "\n") > 2 {
		t.Errorf("strangers fill the log:\n%s", &src.log)
	}
}

func TestSNSHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"sns.us-east-1.amazonaws.com": true, "sns.ap-southeast-2.amazonaws.com": true, "sns.us-gov-west-1.amazonaws.com": true,
		"sns.cn-north-1.amazonaws.com.cn": true, "sns.amazonaws.com": false, "xsns.us-east-1.amazonaws.com": false,
		"sns.us-east-1.amazonaws.com.": false, "sns-us-east-1.amazonaws.com": false, "sns.us-east-1.s3.amazonaws.com": false,
		"sns.us-east-1xamazonaws.com": false, "": false, "localhost": false,
	} {
		_, err := newSNSDoor(nil, nil).trusted((&url.URL{Scheme: "https", Host: host, Path: "/x"}).String())
		if (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestSNSOldCertificate(t *testing.T) {
	t.Parallel()
	sns := newFakeSNS(t, time.Now().Add(-time.Hour))
	src := newSNSSource(t, sns)
	if w := src.post(t, sns.message(t, "2", nil)); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "is valid from") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestSNSConfirmation(t *testing.T) {
	t.Parallel()
	sns := newFakeSNS(t, time.Now().Add(time.Hour))
	src := newSNSSource(t, sns)
	change := map[string]string{"Type": snsSubscribe, "Token": "tok", "SubscribeURL": sns.URL + "/confirm?Token=tok"}
	m := sns.message(t, "1", change)
	if w := src.post(t, m); w.Code != http.StatusAccepted || sns.confirmed.Load() != 1 {
		t.Errorf("%d %s, %d confirmed", w.Code, w.Body, sns.confirmed.Load())
	}
	sns.status.Store(http.StatusInternalServerError)
	if w := src.post(t, m); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "Token=tok") {
		t.Errorf("SNS fails: %d %s", w.Code, w.Body)
	}
	m["Token"] = "forged"
	if w := src.post(t, m); w.Code != http.StatusForbidden {
		t.Errorf("a forged token: %d %s", w.Code, w.Body)
	}
	before := sns.confirmed.Load()
	if w := src.post(t, sns.message(t, "2", map[string]string{"Type": snsUnsubscribe, "Token": "tok", "SubscribeURL": sns.URL + "/confirm?Token=tok"})); w.Code != http.StatusAccepted || sns.confirmed.Load() != before {
		t.Errorf("the end of a subscription: %d, %d confirmed", w.Code, sns.confirmed.Load()-before)
	}
	sns.Close()
	if w := src.post(t, sns.message(t, "2", change)); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "tok") {
		t.Errorf("SNS is away: %d %s", w.Code, w.Body)
	}
	if strings.Contains(src.log.String(), "tok") {
		t.Errorf("the log holds the token:\n%s", &src.log)
	}
}
