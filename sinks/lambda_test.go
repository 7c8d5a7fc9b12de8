package sinks_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// invocation is a call of a function as it arrived.
type invocation struct {
	*http.Request
	body   []byte
	custom map[string]string // of the client context
}

// newLambda serves the Invoke API for a test, and gives a sink of it. Every request
// must be signed.
func newLambda(t *testing.T, change func(*sinks.Lambda), handle func(w http.ResponseWriter, i invocation)) sinks.Sink {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sink went away
		}
		i := invocation{Request: r, body: body}
		if text := r.Header.Get("X-Amz-Client-Context"); text != "" {
			var about struct{ Custom map[string]string }
			raw, err := base64.StdEncoding.DecodeString(text)
			if err == nil {
				err = json.Unmarshal(raw, &about)
			}
			if err != nil {
				t.Errorf("the client context: %v", err)
			}
			i.custom = about.Custom
		}
		if fault := checkSigV4(r, body, "x-amz-invocation-type", "x-amz-security-token"); fault != "" {
			t.Error(fault)
		}
		handle(w, i)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	s := lambdaAt(t, srv.URL)
	if change != nil {
		change(s)
	}
	return open(t, s)
}

// lambdaAt are settings for an endpoint, with all the secrets there can be.
func lambdaAt(t *testing.T, url string) *sinks.Lambda {
	t.Helper()
	s := sinks.NewLambda()
	s.Function, s.Region, s.Endpoint = "fn", "eu-central-1", parse(t, url)
	s.Credentials.AccessKey, s.Credentials.SecretKey, s.Credentials.SessionToken = value.NewText(accessKey), value.NewSecret(secretKey), value.NewSecret(token)
	return s
}

func TestLambdaContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
		f := &far{got: make(chan sinktest.Got, 1024), over: make(chan struct{})}
		f.answer.Store(&sinktest.Answer{Status: http.StatusOK, Body: "null"})
		sink := newLambda(t, nil, func(w http.ResponseWriter, i invocation) {
			// As if it were a structured event over HTTP, which far knows.
			for name, text := range i.custom {
				i.Header.Set(name, text)
			}
			i.Header.Set("Content-Type", bus.TypeStructured)
			i.Body = io.NopCloser(bytes.NewReader(i.body))
			f.ServeHTTP(w, i.Request)
		})
		t.Cleanup(func() { close(f.over) })
		return &sinktest.Subject{
			Sink: sink, Received: f.got, Hang: func() { f.hang.Store(true) },
			Answer:  func(a sinktest.Answer) { f.answer.Store(&a) },
			Carries: true, KeepsKinds: true, Secrets: []string{secretKey, token},
			Elsewhere: func(t *testing.T, addr string, tls *tls.Config) sinks.Sink {
				return openIn(t, lambdaAt(t, schemeOf(tls)+"://"+addr), env)
			},
		}
	})
}

// What the function gets, and how it is called.
func TestLambdaRequests(t *testing.T) {
	t.Parallel()
	at := bus.Attr{Name: "time", Value: "2026-01-02T03:04:05Z"}
	eventBridge := func(s *sinks.Lambda) { s.Payload = "eventbridge" }
	const head = `{"version":"0","id":"i","detail-type":"made","source":"/s","account":"000000000000","time":"2026-01-02T03:04:05Z","region":"eu-central-1","resources":[],"detail":`
	for name, c := range map[string]struct {
		change func(*sinks.Lambda)
		event  bus.Event
		then   func(*sinks.Delivery)
		path   string
		kind   string
		want   string // ! and the error
	}{
		"cloudevents": {nil, kafkaEvent(t, `{"a":1}`), nil, "/2015-03-31/functions/fn/invocations", "RequestResponse", `{"specversion":"1.0","id":"i","source":"/s","type":"made","data":{"a":1}}`},
		"asynchronous": {func(s *sinks.Lambda) { s.Invocation = "event" }, kafkaEvent(t, `1`), nil, "/2015-03-31/functions/fn/invocations", "Event",
			`{"specversion":"1.0","id":"i","source":"/s","type":"made","data":1}`},
		"alias": {func(s *sinks.Lambda) { s.Qualifier = "$LATEST" }, kafkaEvent(t, `1`), nil, "/2015-03-31/functions/fn/invocations?Qualifier=%24LATEST", "RequestResponse",
			`{"specversion":"1.0","id":"i","source":"/s","type":"made","data":1}`},
		"arn": {func(s *sinks.Lambda) {
			s.Payload, s.Function = "eventbridge", "arn:aws:lambda:eu-central-1:123456789012:function:fn"
		}, kafkaEvent(t, `1`, at), nil, "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Afn/invocations", "RequestResponse",
			strings.Replace(head, "000000000000", "123456789012", 1) + `1}`},
		"eventbridge":       {eventBridge, kafkaEvent(t, `{"a": 1.0}`, at), nil, "", "RequestResponse", head + `{"a": 1.0}}`},
		"eventbridge, all":  {func(s *sinks.Lambda) { s.Payload, s.Account = "eventbridge", "77" }, kafkaEvent(t, `[]`, at, bus.Attr{Name: "subject", Value: `a"b`}), nil, "", "RequestResponse", strings.Replace(strings.Replace(head, "000000000000", "77", 1), "[]", `["a\"b"]`, 1) + `[]}`},
		"eventbridge, text": {eventBridge, kafkaEvent(t, "hi", at, bus.Attr{Name: "datacontenttype", Value: "text/plain"}), nil, "", "RequestResponse", head + `"hi"}`},
		"eventbridge, raw":  {eventBridge, kafkaEvent(t, "\xff", at, bus.Attr{Name: "datacontenttype", Value: "image/png"}), nil, "", "RequestResponse", head + `{"data_base64":"/w=="}}`},
		"eventbridge, none": {eventBridge, kafkaEvent(t, "", at), nil, "", "RequestResponse", head + `{}}`},
		"transformed":       {eventBridge, kafkaEvent(t, "1"), func(d *sinks.Delivery) { d.Payload = &sinks.Payload{Body: []byte(`{"x":1}`)} }, "", "RequestResponse", `{"x":1}`},
		"transformed, text": {nil, kafkaEvent(t, "1"), func(d *sinks.Delivery) { d.Payload = &sinks.Payload{Body: []byte("hi")} }, "", "", "!is no JSON"},
	} {
		got := make(chan invocation, 1)
		sink := newLambda(t, c.change, func(_ http.ResponseWriter, i invocation) { got <- i })
		d := sinks.Delivery{Event: c.event, ID: "d", Rule: "r", Sink: "s", Attempt: 2}
		if c.then != nil {
			c.then(&d)
		}
		err := sink.Deliver(t.Context(), d)
		if want, failed := strings.CutPrefix(c.want, "!"); failed {
			var e *sinks.Error
			if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want a permanent error with %q", name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		i := <-got
		if kind := i.Header.Get("X-Amz-Invocation-Type"); string(i.body) != c.want || !bus.ValidJSON(i.body) || kind != c.kind || c.path != "" && i.RequestURI != c.path {
			t.Errorf("%s: %s %s\n%s, want\n%s", name, kind, i.RequestURI, i.body, c.want)
		}
		if (i.custom["sluice-delivery-id"] == "d" && i.custom["sluice-attempt"] == "2") != (c.kind == "RequestResponse") {
			t.Errorf("%s: the client context is %v", name, i.custom)
		}
	}
}

// Each kind of failure has its own words and its own verdict.
func TestLambdaVerdicts(t *testing.T) {
	t.Parallel()
	long := `{"errorType":"E","errorMessage":"` + strings.Repeat("x", 100_000) + `"}`
	for name, c := range map[string]struct {
		status        int
		header        []string
		body          string
		verdict       int
		want, not     string
		after         time.Duration
		answerAtLeast int
	}{
		"unhandled":   {200, []string{"X-Amz-Function-Error", "Unhandled"}, `{"errorMessage":"torn","errorType":"TypeError","trace":[]}`, 500, "the function fn failed (Unhandled): TypeError: torn", "", 0, 40},
		"handled":     {200, []string{"X-Amz-Function-Error", "Handled"}, `{"errorMessage":"no more"}`, 500, "failed (Handled): no more", "", 0, 10},
		"wordless":    {200, []string{"X-Amz-Function-Error", "Unhandled"}, `nothing`, 500, "it says nothing about why", "", 0, 7},
		"long":        {200, []string{"X-Amz-Function-Error", "Unhandled"}, long, 500, "E: xxx", strings.Repeat("x", 400), 0, 4096},
		"shows us":    {200, []string{"X-Amz-Function-Error", "Unhandled"}, `{"errorMessage":"you have ` + secretKey + `"}`, 500, "you have ***", secretKey, 0, 10},
		"no function": {404, []string{"X-Amzn-Errortype", "ResourceNotFoundException:http://x"}, `{"Message":"Function not found: fn","Type":"User"}`, 404, "ResourceNotFoundException: Function not found: fn (there is no such function", "http://x", 0, 10},
		"busy":        {429, []string{"X-Amzn-Errortype", "TooManyRequestsException", "Retry-After", "7"}, `{"Reason":"x","message":"Rate Exceeded."}`, 429, "Rate Exceeded", "", 7 * time.Second, 10},
		"wrong key":   {403, []string{"X-Amzn-Errortype", "UnrecognizedClientException"}, `{"message":"The security token is invalid."}`, 403, "check access_key", "", 0, 10},
		"wrong sum":   {403, []string{"X-Amzn-Errortype", "InvalidSignatureException"}, `{}`, 403, "check secret_key", "", 0, 1},
		"denied":      {403, []string{"X-Amzn-Errortype", "AccessDeniedException"}, `{"Message":"no"}`, 403, "the credentials do not allow it", "", 0, 1},
		"odd 403":     {403, nil, `<html>`, 403, "lambda:InvokeFunction", "", 0, 1},
		"too large":   {413, []string{"X-Amzn-Errortype", "RequestTooLargeException"}, `{}`, 413, "RequestTooLargeException", "", 0, 1},
		"broken":      {502, nil, ``, 502, "invoke fn: answered 502", "", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := newLambda(t, nil, func(w http.ResponseWriter, _ invocation) {
				for i := 0; i < len(c.header); i += 2 {
					w.Header().Set(c.header[i], c.header[i+1])
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			err := sink.Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
			var e *sinks.Error
			if !errors.As(err, &e) || e.Permanent || e.Status != c.verdict || e.RetryAfter != c.after || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v (%+v), want status %d and %q", err, e, c.verdict, c.want)
			}
			if c.not != "" && strings.Contains(err.Error()+string(e.Answer), c.not) && name != "long" || name == "long" && strings.Contains(err.Error(), c.not) {
				t.Errorf("%.500v shows %.80q", err, c.not)
			}
			if len(e.Answer) < c.answerAtLeast || c.status == 200 && len(e.Answer) > 4096 {
				t.Errorf("%d bytes of the answer are kept", len(e.Answer))
			}
		})
	}
}

// Who has no credentials is told so, and nothing is asked of the machine.
func TestLambdaWithoutCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	s := sinks.NewLambda()
	s.Function, s.Endpoint = "fn", parse(t, "http://127.0.0.1:1")
	d := sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1}
	var e *sinks.Error
	if err := open(t, s).Deliver(t.Context(), d); !errors.As(err, &e) || e.Status != 401 || !strings.Contains(err.Error(), "no credentials were found") {
		t.Errorf("lambda: %v (%+v)", err, e)
	}
	q := sinks.NewSQS()
	q.QueueURL = parse(t, "http://127.0.0.1:1/1/q")
	if err := open(t, q).Deliver(t.Context(), d); !errors.As(err, &e) || e.Status != 401 || !strings.Contains(err.Error(), "no credentials were found") {
		t.Errorf("sqs: %v (%+v)", err, e)
	}
}

func TestLambdaReplies(t *testing.T) {
	t.Parallel()
	const one = `{"specversion":"1.0","id":"%","source":"/s","type":"t"}`
	for name, c := range map[string]struct {
		answer string
		want   string // ids
		fails  string
	}{
		"event":       {strings.Replace(one, "%", "a", 1), "a", ""},
		"list":        {" [" + strings.Replace(one, "%", "a", 1) + "," + strings.Replace(one, "%", "b", 1) + "]", "ab", ""},
		"none":        {`{"statusCode":200}`, "", ""},
		"null":        {`null`, "", ""},
		"empty":       {``, "", ""},
		"empty list":  {`[]`, "", ""},
		"text":        {`"specversion"`, "", ""},
		"not valid":   {`{"specversion":"1.0"}`, "", "not valid"},
		"large":       {`{"x":"` + strings.Repeat("x", 2<<20) + `"}`, "", ""},
		"large event": {`{"specversion":"1.0","data":"` + strings.Repeat("x", 2<<20) + `"}`, "", "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := newLambda(t, nil, func(w http.ResponseWriter, _ invocation) { _, _ = io.WriteString(w, c.answer) }).(sinks.Replier)
			d := sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Sink: "s", Attempt: 1, Ask: sinks.Ask{Events: true, Body: true}}
			a, err := sink.DeliverReply(t.Context(), d)
			var e *sinks.Error
			if c.fails != "" {
				if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v, want a permanent error with %q", err, c.fails)
				}
				return
			}
			ids := ""
			for _, e := range a.Events {
				ids += e.ID()
			}
			if err != nil || ids != c.want || a.Status != 200 || !strings.HasPrefix(c.answer, string(a.Body)) || len(a.Body) > sinks.MaxAnswerBody {
				t.Errorf("%v: events %q, want %q; status %d, %d bytes", err, ids, c.want, a.Status, len(a.Body))
			}
		})
	}
}

func TestLambdaBatch(t *testing.T) {
	t.Parallel()
	bodies := make(chan []byte, 1)
	for payload, want := range map[string]string{
		"cloudevents": `[{"specversion":"1.0","id":"0","source":"/s","type":"made","data":0},{"specversion":"1.0","id":"1","source":"/s","type":"made","data":1},{"specversion":"1.0","id":"2","source":"/s","type":"made","data":2}]`,
		"eventbridge": `{"Records":[{"version":"0","id":"0",`,
	} {
		answer := ""
		sink := newLambda(t, func(s *sinks.Lambda) { s.Payload = payload }, func(w http.ResponseWriter, i invocation) {
			bodies <- i.body
			_, _ = io.WriteString(w, answer)
		}).(sinks.BatchSink)
		var ds []sinks.Delivery
		for _, id := range []string{"0", "1", "2"} {
			e, err := kafkaEvent(t, id).With(bus.Attr{Name: "id", Value: id})
			if err != nil {
				t.Fatal(err)
			}
			ds = append(ds, sinks.Delivery{Event: e, ID: "d" + id, Sink: "s", Attempt: 1})
		}
		for _, c := range []struct {
			answer string
			failed string // their places
			all    string // the error of all
		}{
			{`{"batchItemFailures":[{"itemIdentifier":"1"}]}`, "1", ""},
			{`{"batchItemFailures":[]}`, "", ""},
			{`null`, "", ""},
			{``, "", ""},
			{`{"batchItemFailures":[{"itemIdentifier":"x"}]}`, "", "no event of the batch"},
			{`{"log":"` + strings.Repeat("x", 1<<20) + `","batchItemFailures":[{"itemIdentifier":"1"}]}`, "1", ""},
			{`{"log":"` + strings.Repeat("x", 8<<20) + `","batchItemFailures":[{"itemIdentifier":"1"}]}`, "", "answer with batchItemFailures alone"},
		} {
			answer = c.answer
			failed, err := sink.DeliverBatch(t.Context(), ds)
			if body := string(<-bodies); !strings.HasPrefix(body, want) || !bus.ValidJSON([]byte(body)) {
				t.Errorf("the payload is %s", body)
			}
			places := ""
			for i, err := range failed {
				if err != nil {
					places += string(rune('0' + i))
				}
			}
			if places != c.failed || (err != nil) != (c.all != "") || err != nil && !strings.Contains(err.Error(), c.all) {
				t.Errorf("%.80s: failed %q, %v", c.answer, places, err)
			}
		}
	}
}

func TestLambdaFaults(t *testing.T) {
	t.Parallel()
	for key, change := range map[string]func(*sinks.Lambda){
		"function":   func(s *sinks.Lambda) { s.Function = "" },
		"function ":  func(s *sinks.Lambda) { s.Function = "a/b" },
		"qualifier":  func(s *sinks.Lambda) { s.Qualifier = "a b" },
		"invocation": func(s *sinks.Lambda) { s.Invocation = "DryRun" },
		"payload":    func(s *sinks.Lambda) { s.Payload = "sns" },
		"account":    func(s *sinks.Lambda) { s.Account = "me" },
		"endpoint":   func(s *sinks.Lambda) { s.Endpoint = parse(t, "http://u:p@127.0.0.1") },
	} {
		s := sinks.NewLambda()
		s.Function = "fn"
		change(s)
		if faults := s.Validate(); len(faults) != 1 || faults[0].Key != strings.TrimSpace(key) {
			t.Errorf("%s: %v", key, faults)
		}
	}
}

// Lambda's own address follows from the region.
func TestLambdaAddress(t *testing.T) {
	t.Parallel()
	for region, host := range map[string]string{"eu-central-1": "lambda.eu-central-1.amazonaws.com", "cn-north-1": "lambda.cn-north-1.amazonaws.com.cn"} {
		s := sinks.NewLambda()
		s.Function, s.Region = "fn", region
		s.Credentials.AccessKey, s.Credentials.SecretKey = value.NewText(accessKey), value.NewSecret(secretKey)
		if got := sinks.LambdaHost(open(t, s)); got != host {
			t.Errorf("%s: %s, want %s", region, got, host)
		}
	}
}
