package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const webhookSecret = "the-secret-of-the-webhook"

// webhookOf is a request of one of the services for an event with that id.
func webhookOf(base, service, id, secret string) (*http.Request, error) {
	sign := func(parts ...string) string {
		m := hmac.New(sha256.New, []byte(secret))
		_, _ = io.WriteString(m, strings.Join(parts, ""))
		return hex.EncodeToString(m.Sum(nil))
	}
	body := fmt.Sprintf(`{"id": %q, "type": "invoice.paid"}`, id)
	req, err := http.NewRequest(http.MethodPost, base+"/in/"+service, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if service == "github" {
		req.Header.Set("X-GitHub-Event", "push")
		req.Header.Set("X-GitHub-Delivery", id)
		req.Header.Set("X-Hub-Signature-256", "sha256="+sign(body))
	} else {
		at := fmt.Sprint(time.Now().Unix()) // another one each time it is sent, as Stripe does
		req.Header.Set("Stripe-Signature", "t="+at+",v1="+sign(at, ".", body))
	}
	return req, nil
}

// sendWebhook sends until it is answered 2xx or stop: services do not give up.
func sendWebhook(client *http.Client, base, service, id, secret string, stop func() bool) (acked bool, attempts int) {
	for !stop() {
		req, err := webhookOf(base, service, id, secret)
		if err != nil {
			return false, attempts
		}
		attempts++
		resp, err := client.Do(req)
		if err != nil {
			<-time.After(20 * time.Millisecond)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode/100 == 2:
			return true, attempts
		case resp.StatusCode == http.StatusUnauthorized:
			return false, attempts
		}
		<-time.After(20 * time.Millisecond)
	}
	return false, attempts
}

// TestProcessWebhookKill kills the program while services send webhooks, and send
// each again until it is taken. Every one has its event at the function, under the
// id that the service gave it, and none of the forged ones has.
func TestProcessWebhookKill(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sources:\n"+
		"  github: {webhook: {path: /in/github, verify: {github: \"${env:WEBHOOK_SECRET}\"}}}\n"+
		"  stripe: {webhook: {path: /in/stripe, verify: {stripe: [\"${env:WEBHOOK_SECRET}\", other]}}}\n"+
		"sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.env = append(p.env, "WEBHOOK_SECRET="+webhookSecret)
	p.start()
	var (
		client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
		end    atomic.Bool
		mu     sync.Mutex
		acked  = map[string]int{} // attempts
		forged atomic.Int64
		load   sync.WaitGroup
		limit  = time.Now().Add(2 * time.Minute)
	)
	defer client.CloseIdleConnections()
	late := func() bool { return time.Now().After(limit) }
	for _, service := range []string{"github", "stripe"} {
		for w := range 8 {
			load.Go(func() {
				for i := 0; !end.Load(); i++ {
					id := fmt.Sprintf("%s-%d-%d", service, w, i)
					if ok, attempts := sendWebhook(client, p.base, service, id, webhookSecret, late); ok {
						mu.Lock()
						acked[id] = attempts
						mu.Unlock()
					} else {
						t.Errorf("%s is never taken", id)
					}
				}
			})
		}
		load.Go(func() {
			for i := 0; !end.Load(); i++ {
				if ok, _ := sendWebhook(client, p.base, service, fmt.Sprintf("forged-%s-%d", service, i), "a guess", end.Load); ok {
					t.Error("a forged webhook is taken")
				}
				forged.Add(1)
				<-time.After(5 * time.Millisecond)
			}
		})
	}
	rounds := scale(3, 20)
	for range rounds {
		<-time.After(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		p.kill()
		p.start()
	}
	end.Store(true)
	load.Wait()
	p.settled(60 * time.Second)
	lost, twice, again := 0, 0, 0
	for id, attempts := range acked {
		n := f.times(id)
		if n == 0 {
			lost++
		}
		twice += max(0, n-1)
		if attempts > 1 {
			again++
		}
	}
	t.Logf("%d rounds of kill -9: %d webhooks taken, %d of them sent more than once; %d events lost, %d delivered again; %d forged ones refused",
		rounds, len(acked), again, lost, twice, forged.Load())
	if lost > 0 || f.distinct() > len(acked) {
		t.Errorf("%d webhooks taken, %d lost, %d different events at the function", len(acked), lost, f.distinct())
	}
	if len(acked) < 50*rounds || forged.Load() < 10 || again == 0 {
		t.Errorf("%d webhooks, %d forged, %d sent again: that is no load", len(acked), forged.Load(), again)
	}
	if twice > len(acked)/2+100*rounds {
		t.Errorf("%d duplicates", twice)
	}
	if strings.Contains(p.log.String(), webhookSecret) {
		t.Error("the log holds the secret")
	}
}
