package sinks

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sluice/bus"
	"sluice/config/aws"
	"sluice/config/value"
)

// Lambda are the settings of the lambda sink: a function of AWS Lambda or of a server
// with its Invoke API, such as LocalStack or serverless-offline.
//
// The function gets the event as a JSON CloudEvent, or in the form of EventBridge:
//
//	{"version": "0", "id": …, "detail-type": the type, "source": …, "account": …,
//	 "time": …, "region": …, "resources": [the subject], "detail": the data}
//
// in which a detail that is no JSON is a text, or {"data_base64": …}. A batch is a list
// of CloudEvents, or {"Records": […]} of the others. What a transform made of an event
// is the payload as it is. With request_response the client context holds the
// delivery, as custom values named sluice-delivery-id and so on.
type Lambda struct {
	Function       string `yaml:"function" doc:"The name of the function, or its ARN."`
	Qualifier      string `yaml:"qualifier" doc:"The version or the alias of the function; the newest when left out."`
	aws.Connection `yaml:",inline"`
	Invocation     string `yaml:"invocation" enum:"request_response,event" doc:"request_response waits for the function and sees whether it failed; event only hands the event over, and Lambda tries it again by itself."`
	Payload        string `yaml:"payload" enum:"cloudevents,eventbridge" doc:"The form that the function gets the event in."`
	Account        string `yaml:"account" doc:"The account in the EventBridge form; that of the function's ARN when left out."`
}

// The values of Lambda.Invocation and Lambda.Payload.
const (
	invokeAndWait      = "request_response"
	invokeEvent        = "event"
	payloadCloudEvents = "cloudevents"
	payloadEventBridge = "eventbridge"
)

// NewLambda returns the settings with their defaults.
func NewLambda() *Lambda { return &Lambda{Invocation: invokeAndWait, Payload: payloadCloudEvents} }

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// Validate is Settings.Validate.
func (s *Lambda) Validate() value.Faults {
	faults := s.Connection.Validate()
	switch {
	case s.Function == "":
		faults.Add("function", "is missing: name the function, such as thumbnails or arn:aws:lambda:eu-central-1:123456789012:function:thumbnails")
	case len(s.Function) > 256 || strings.Trim(s.Function, letters+"-_:.$") != "":
		faults.Add("function", "is %.80q, which is no name of a function: letters, digits, - and _, or an ARN", s.Function)
	}
	if len(s.Qualifier) > 128 || strings.Trim(s.Qualifier, letters+"-_$") != "" {
		faults.Add("qualifier", "is %.80q: write a version, an alias or $LATEST", s.Qualifier)
	}
	if s.Invocation != invokeAndWait && s.Invocation != invokeEvent {
		faults.Add("invocation", "is %q: write %s or %s", s.Invocation, invokeAndWait, invokeEvent)
	}
	if s.Payload != payloadCloudEvents && s.Payload != payloadEventBridge {
		faults.Add("payload", "is %q: write %s or %s", s.Payload, payloadCloudEvents, payloadEventBridge)
	}
	if strings.Trim(s.Account, "0123456789") != "" {
		faults.Add("account", "is %q: write the digits of an account", s.Account)
	}
	return faults
}

// Open is Settings.Open.
func (s *Lambda) Open(ctx context.Context, env Env) (Sink, error) {
	if err := env.unguarded("lambda"); err != nil {
		return nil, err
	}
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	var region, account string
	if parts := strings.Split(s.Function, ":"); parts[0] == "arn" && len(parts) > 5 {
		region, account = parts[3], parts[4]
	}
	cfg, err := s.Config(ctx, region)
	if err != nil {
		return nil, err
	}
	endpoint := s.Endpoint
	if endpoint.IsZero() {
		domain := ".amazonaws.com"
		if strings.HasPrefix(cfg.Region, "cn-") {
			domain += ".cn"
		}
		if endpoint, err = value.ParseURL("https://lambda." + cfg.Region + domain); err != nil {
			return nil, err
		}
	}
	target := *endpoint.URL
	path := strings.TrimSuffix(target.Path, "/") + "/2015-03-31/functions/"
	target.Path = path + s.Function + "/invocations"
	target.RawPath = path + strings.ReplaceAll(url.PathEscape(s.Function), ":", "%3A") + "/invocations"
	if s.Qualifier != "" {
		target.RawQuery = url.Values{"Qualifier": {s.Qualifier}}.Encode()
	}
	return &lambdaSink{
		http: &httpSink{
			request: &http.Request{
				Method: http.MethodPost, URL: &target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			},
			where: target.Host, maxAnswer: lambdaAnswer, secrets: longest(s.Secrets()), transport: newCarrier(endpoint, env, nil),
			credential: &signer{signer: v4.NewSigner(), credentials: cfg.Credentials, region: cfg.Region, service: "lambda"},
		},
		function: s.Function, wait: s.Invocation == invokeAndWait, eventBridge: s.Payload == payloadEventBridge,
		region: cfg.Region, account: cmp.Or(s.Account, account, "000000000000"),
	}, nil
}

// lambdaAnswer is how much of a refusal is read, and of an answer that nobody wants.
const lambdaAnswer = 64 << 10

// lambdaSink invokes one function. It speaks the API, which is one request, through the
// connections of the http sink: their guard, their limits and what they hide count here
// too. The client of the SDK would have its own, in 0.7 MB.
type lambdaSink struct {
	http        *httpSink
	function    string
	wait        bool
	eventBridge bool
	region      string
	account     string
}

// payload is what the function gets of one event.
func (s *lambdaSink) payload(dst []byte, e bus.Event) []byte {
	if !s.eventBridge {
		return e.AppendJSON(dst)
	}
	text := func(key, text string) {
		dst = append(dst, key...)
		dst = appendText(dst, text)
	}
	text(`{"version":"0","id":`, e.ID())
	text(`,"detail-type":`, e.Type())
	text(`,"source":`, e.Source())
	text(`,"account":`, s.account)
	text(`,"time":`, e.Get("time"))
	text(`,"region":`, s.region)
	dst = append(dst, `,"resources":[`...)
	if subject := e.Subject(); subject != "" {
		dst = appendText(dst, subject)
	}
	dst = append(dst, `],"detail":`...)
	switch contentType := e.Get("datacontenttype"); {
	case len(e.Data()) == 0:
		dst = append(dst, "{}"...)
	case e.DataIsJSON():
		dst = append(dst, e.Data()...)
	case sqsFault(string(e.Data())) == "" && (contentType == "" || strings.HasPrefix(strings.ToLower(contentType), "text/")):
		dst = appendText(dst, string(e.Data()))
	default:
		dst = append(dst, `{"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data())
		dst = append(dst, `"}`...)
	}
	return append(dst, '}')
}

func appendText(dst []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil { // a text has no way to fail
		quoted = []byte(`""`)
	}
	return append(dst, quoted...)
}

// one is the payload of one delivery.
func (s *lambdaSink) one(d Delivery) ([]byte, error) {
	if d.Payload == nil || d.Payload.Body == nil {
		return s.payload(make([]byte, 0, d.Event.Size()+256), d.Event), nil
	}
	if !bus.ValidJSON(d.Payload.Body) {
		return nil, Permanent(errors.New("what the transform made is no JSON, which is all that a function of Lambda takes"))
	}
	return d.Payload.Body, nil
}

// batch is the payload of several deliveries.
func (s *lambdaSink) batch(ds []Delivery) []byte {
	size := 32
	for i := range ds {
		size += ds[i].Event.Size() + 256
	}
	head, tail := "[", "]"
	if s.eventBridge {
		head, tail = `{"Records":[`, `]}`
	}
	body := append(make([]byte, 0, size), head...)
	for i := range ds {
		if i > 0 {
			body = append(body, ',')
		}
		body = s.payload(body, ds[i].Event)
	}
	return append(body, tail...)
}

// clientContext tells the function what it is called for.
func clientContext(d Delivery) string {
	custom := map[string]string{
		"sluice-delivery-id": d.ID, "sluice-attempt": strconv.Itoa(d.Attempt), "sluice-rule": d.Rule, "sluice-sink": d.Sink,
	}
	text, err := json.Marshal(map[string]any{"custom": custom})
	if err != nil || len(text) > 2600 { // Lambda takes 3583 bytes of base64
		return ""
	}
	return base64.StdEncoding.EncodeToString(text)
}

// Close is io.Closer.
func (s *lambdaSink) Close() error { return s.http.Close() }
