package sources

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/gjson"
)

// The kinds of SNS message.
const (
	snsNotification = "Notification"
	snsSubscribe    = "SubscriptionConfirmation"
	snsUnsubscribe  = "UnsubscribeConfirmation"
)

// snsMessage is the envelope in which SNS sends.
type snsMessage struct {
	kind   string
	topic  string
	fields map[string]string
}

func readSNS(doc gjson.Result) *snsMessage {
	m := &snsMessage{kind: doc.Get("Type").String(), topic: doc.Get("TopicArn").String(), fields: map[string]string{}}
	for _, name := range []string{
		"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
		"Signature", "SignatureVersion", "SigningCertURL",
	} {
		if f := doc.Get(name); f.Type == gjson.String {
			m.fields[name] = f.Str
		}
	}
	return m
}

// signed is the text that SNS signs: some of the fields with their names (Amazon SNS
// Developer Guide, "Verifying the signatures of Amazon SNS messages").
func (m *snsMessage) signed() []byte {
	names := []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	if m.kind == snsNotification {
		names = []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	}
	var b strings.Builder
	for _, name := range names {
		if text, ok := m.fields[name]; ok {
			b.WriteString(name + "\n" + text + "\n")
		}
	}
	return []byte(b.String())
}

// snsDoor tells messages of SNS from forged ones and confirms subscriptions.
type snsDoor struct {
	topics []string // whose messages are taken
	hosts  []string // that stand for SNS besides those of AWS
	client *http.Client
	now    func() time.Time

	mu    sync.Mutex
	certs map[string]*x509.Certificate // by their URL
}

// The limits of what is asked of SNS.
const (
	snsTimeout  = 10 * time.Second
	snsMaxCert  = 64 << 10
	snsMaxCerts = 16 // AWS has one for each region at a time
)

func newSNSDoor(topics, hosts []string) *snsDoor {
	return &snsDoor{
		topics: topics, hosts: hosts, now: time.Now, certs: map[string]*x509.Certificate{},
		client: &http.Client{
			Timeout: snsTimeout,
			// A redirect would lead away from the hosts that are trusted.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// errDenied is a message whose sender is not who it should be.
var errDenied = errors.New("refused")

// verify returns nil when the message comes from SNS and from one of the topics. An
// error that is not errDenied is worth another attempt.
func (s *snsDoor) verify(ctx context.Context, m *snsMessage) error {
	if !slices.Contains(s.topics, m.topic) {
		return fmt.Errorf("%w: the topic %q is not in sns.topics", errDenied, cut(m.topic))
	}
	if !slices.Contains([]string{snsNotification, snsSubscribe, snsUnsubscribe}, m.kind) {
		return fmt.Errorf("%w: SNS has no messages of type %q", errDenied, cut(m.kind))
	}
	var algorithm x509.SignatureAlgorithm
	switch m.fields["SignatureVersion"] {
	case "1":
		algorithm = x509.SHA1WithRSA
	case "2":
		algorithm = x509.SHA256WithRSA
	default:
		return fmt.Errorf("%w: the signature version %q is neither 1 nor 2", errDenied, cut(m.fields["SignatureVersion"]))
	}
	signature, err := base64.StdEncoding.DecodeString(m.fields["Signature"])
	if err != nil {
		return fmt.Errorf("%w: the signature is not base64", errDenied)
	}
	cert, err := s.certificate(ctx, m.fields["SigningCertURL"])
	if err != nil {
		return err
	}
	if err := cert.CheckSignature(algorithm, m.signed(), signature); err != nil {
		return fmt.Errorf("%w: the signature is not that of SNS over this message", errDenied)
	}
	return nil
}

// awsSNS are the hosts of SNS.
var awsSNS = regexp.MustCompile(`^sns\.[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com(\.cn)?$`)

// trusted reads a URL that a message names: https at a host of SNS or one that the
// operator named. Everything else would let the sender vouch for itself, or send
// requests into the network from here.
func (s *snsDoor) trusted(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" || u.User != nil || u.Opaque != "":
		return nil, fmt.Errorf("%w: %q is not a URL of SNS", errDenied, cut(text))
	case !awsSNS.MatchString(u.Host) && !slices.Contains(s.hosts, u.Host):
		return nil, fmt.Errorf("%w: the host %q is not one of SNS; another one has to be in sns.hosts", errDenied, cut(u.Host))
	}
	return u, nil
}

// certificate is the certificate at that URL, from the cache where it can be.
func (s *snsDoor) certificate(ctx context.Context, text string) (*x509.Certificate, error) {
	u, err := s.trusted(text)
	if err != nil {
		return nil, err
	}
	// The same hosts answer other requests with texts of the caller's.
	if !strings.HasPrefix(u.Path, "/SimpleNotificationService-") || !strings.HasSuffix(u.Path, ".pem") ||
		strings.Contains(u.Path[1:], "/") || u.RawQuery != "" {
		return nil, fmt.Errorf("%w: %q is not where SNS has its certificates", errDenied, cut(text))
	}
	s.mu.Lock()
	cert := s.certs[u.String()]
	s.mu.Unlock()
	if cert == nil {
		doc, err := s.get(ctx, u)
		if err != nil {
			return nil, err
		}
		if cert, err = parseCertificate(doc); err != nil {
			return nil, err
		}
	}
	if now := s.now(); now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return nil, fmt.Errorf("%w: the certificate of SNS is valid from %s to %s, not now", errDenied,
			cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.certs) >= snsMaxCerts {
		clear(s.certs)
	}
	s.certs[u.String()] = cert
	return cert, nil
}

func parseCertificate(doc []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(doc)
	if block == nil || block.Type != "CERTIFICATE" || !strings.HasPrefix(string(doc), "-----BEGIN") {
		return nil, fmt.Errorf("%w: what SigningCertURL points to is not a certificate", errDenied)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: the certificate of SNS cannot be read: %w", errDenied, err)
	}
	return cert, nil
}

// confirm tells SNS that the subscription is wanted. The message must be verified.
func (s *snsDoor) confirm(ctx context.Context, m *snsMessage) error {
	u, err := s.trusted(m.fields["SubscribeURL"])
	if err != nil {
		return err
	}
	_, err = s.get(ctx, u)
	return err
}

func (s *snsDoor) get(ctx context.Context, u *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, snsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("SNS at %s does not answer: %w", u.Host, unwrapURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	doc, err := io.ReadAll(io.LimitReader(res.Body, snsMaxCert))
	switch {
	case err != nil:
		return nil, fmt.Errorf("SNS at %s does not answer: %w", u.Host, err)
	case res.StatusCode/100 != 2:
		return nil, fmt.Errorf("SNS at %s answers %s", u.Host, res.Status)
	}
	return doc, nil
}

// unwrapURL leaves the URL out of an error: it holds the token of a subscription.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
