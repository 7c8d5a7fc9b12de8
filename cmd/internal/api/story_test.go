package api_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app/apptest"
)

// A story is as the document says it is, whatever the id holds; and a request that
// cannot be answered says why.
func TestStories(t *testing.T) {
	t.Parallel()
	n, _ := start(t)
	n.MustPublish("bad-a/b?c#d", "order.created", `{"total": 8}`)
	apptest.Eventually(t, "it is a dead letter", func() bool { b := n.Bus().Balance(); return b.Dead == 1 && b.Open() == 0 })
	for _, redriven := range []bool{false, true} {
		var all dispatch.Stories
		n.Get("/api/v1/story?id=bad-a%2Fb%3Fc%23d&since=1h&source=%2Ftest", &all)
		if len(all.Stories) != 1 || len(all.Stories[0].Rules) != 1 || all.Stories[0].Deliveries[0].State != dispatch.DeliveryDead || !all.Search.Complete {
			t.Fatalf("%+v", all)
		}
		if last := all.Stories[0].Timeline[len(all.Stories[0].Timeline)-1]; last.Status != http.StatusUnprocessableEntity || last.Letter == "" {
			t.Errorf("%+v", last)
		}
		if redriven {
			break
		}
		n.Post("/api/v1/dead-letters/redrive", "{}", &dispatch.Job{})
		apptest.Eventually(t, "it is one again", func() bool { b := n.Bus().Balance(); return b.Dead == 2 && b.Open() == 0 })
	}
	for query, want := range map[string]string{
		"":                         "give the id of one event",
		"id=":                      "give the id of one event",
		"id=a&id=b":                "give the id of one event",
		"id=a&since=tomorrow":      "is no time",
		"id=a&sources=b":           "there is no parameter",
		"id=%zz":                   "not well-formed",
		"id=nobody":                "no event with the id \"nobody\" among those accepted since",
		"id=bad-a%2Fb&source=shop": "of the source \"shop\"",
	} {
		a := n.Do("GET", "/api/v1/story?"+query, "")
		if a.Status != http.StatusBadRequest && a.Status != http.StatusNotFound || !strings.Contains(strings.ReplaceAll(string(a.Body), `\"`, `"`), want) {
			t.Errorf("%s: %d %s", query, a.Status, a.Body)
		}
	}
}
