package app_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// What callers could take advantage of is not forgotten by a reload, whether it changes
// their source or something else: which webhooks were taken, and how much of a rate was
// spent.
func TestReloadRemembersCallers(t *testing.T) {
	t.Parallel()
	const before = `
server: {auth: {tokens: [{name: a, token: admin, scopes: [admin], rate: 20/d}, {name: b, token: b, scopes: [publish], rate: 2/d}]}}
sources:
  hub: {webhook: {path: /in/hub, verify: {github: old}}}
  own: {http: {path: /in/own, auth: {tokens: [{name: c, token: c, rate: 2/d}]}}}
sinks: {out: {queue: {}}}
rules: {all: {match: {type: [x]}, to: [out]}}
`
	for name, after := range map[string]string{
		"something else": strings.Replace(before, "type: [x]", "type: [y]", 1),
		"the sources":    strings.NewReplacer("github: old", "github: [new, old]", "path: /in/own,", "path: /in/own, set: {subject: s},").Replace(before),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := apptest.Start(t, before)
			n.Token = "admin"
			hook := func(id string) string {
				const body = `{"zen": "Keep it logically awesome."}`
				mac := hmac.New(sha256.New, []byte("old"))
				_, _ = mac.Write([]byte(body))
				a := n.Do(http.MethodPost, "/in/hub", body, "Content-Type", "application/json", "X-GitHub-Event", "ping", "X-GitHub-Delivery", id,
					"X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
				return fmt.Sprint(a.Status, " ", strings.Contains(string(a.Body), "deduplicated"))
			}
			send := func(token, path string) int {
				return n.Do(http.MethodPost, path, "{}", "Authorization", "Bearer "+token, "Content-Type", "application/json",
					"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/t", "Ce-Type", "x").Status
			}
			if got := hook("1"); got != "202 false" {
				t.Fatalf("the first webhook: %s", got)
			}
			for range 2 {
				if b, c := send("b", "/events"), send("c", "/in/own"); b != 202 || c != 202 {
					t.Fatalf("within the rate: %d %d", b, c)
				}
			}
			n.WriteConfig(after)
			if r := n.Reload(t.Context()); !r.OK || r.Changes.Empty() {
				t.Fatalf("the reload: %+v", r)
			}
			if again, other := hook("1"), hook("2"); again != "202 true" || other != "202 false" {
				t.Errorf("the same webhook again: %s; another one: %s", again, other)
			}
			if b, c := send("b", "/events"), send("c", "/in/own"); b != 429 || c != 429 {
				t.Errorf("beyond the rate: %d at /events, %d at the source", b, c)
			}
		})
	}
}
