package api_test

import (
	"fmt"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// TestWhere is about rules with a where and a transform, in every answer that
// tells of rules.
func TestWhere(t *testing.T) {
	t.Parallel()
	n := apptest.Start(t, `
sinks: {out: {stdout: {}}}
rules:
  no: {match: {type: [a]}, where: id = 'x', to: [out]}
  fails: {match: {type: [a]}, where: absent = 1, to: [out]}
  shaped: {match: {type: [a]}, where: id = 'never', to: [out], transform: {template: "<sluice.rule>"}}
`)
	n.Client.Transport = checked{t, openDocument(t), n.Client.Transport}
	n.MustPublish("1", "a", "")
	var list struct {
		Rules []struct {
			Name, Where     string
			Transform       bool
			WhereRejections int    `json:"where_rejections"`
			WhereErrors     int    `json:"where_errors"`
			LastWhereError  string `json:"last_where_error"`
		}
	}
	apptest.Eventually(t, "the event is routed", func() bool {
		n.Get("/api/v1/rules", &list)
		return list.Rules[2].WhereRejections == 1
	})
	const want = "[{no id = 'x' false 1 0 } {fails absent = 1 false 0 1 missing attribute error: absent} {shaped id = 'never' true 1 0 }]"
	if got := fmt.Sprint(list.Rules); got != want {
		t.Errorf("the rules are\n%s\nwant\n%s", got, want)
	}
	event := `{"specversion":"1.0","id":"1","source":"/t","type":"a"}`
	var match struct {
		Rules       []string
		WhereMisses []struct{ Rule, Error string } `json:"where_misses"`
	}
	n.Post("/api/v1/match", event, &match)
	if got := fmt.Sprint(match); got != "{[] [{no } {fails missing attribute error: absent} {shaped }]}" {
		t.Errorf("match: %s", got)
	}
	var why struct {
		Explanations []struct {
			Rule    string
			Matched bool
			Where   struct{ Expression, Verdict, Error string }
		}
	}
	n.Post("/api/v1/explain", `{"event": `+event+`}`, &why)
	if got := fmt.Sprint(why.Explanations); got != "[{no false {id = 'x' false }} {fails false {absent = 1 error missing attribute error: absent}} {shaped false {id = 'never' false }}]" {
		t.Errorf("explain: %s", got)
	}
}
