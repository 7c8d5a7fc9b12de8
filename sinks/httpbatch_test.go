package sinks_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/sinks"
)

// Which events of a batch failed may stand anywhere in the answer: one that was not
// read whole says that of none.
func TestHTTPBatchAnswerIsReadWhole(t *testing.T) {
	t.Parallel()
	failed := `"batchItemFailures":[{"itemIdentifier":"1"}]`
	for name, c := range map[string]struct {
		answer string
		failed bool   // the event with the id 1
		all    string // the error of all, which is final
	}{
		"short":         {`{` + failed + `}`, true, ""},
		"at the end":    {`{"log":"` + strings.Repeat("x", 64<<10) + `",` + failed + `}`, true, ""},
		"no end":        {`{"log":"` + strings.Repeat("x", 8<<20) + `",` + failed + `}`, false, "larger than 8MiB"},
		"large no JSON": {strings.Repeat("x", 100<<10), false, ""},
		"as large":      {`{` + failed + strings.Repeat(" ", 64<<10-len(failed)-2) + `}`, true, ""},
	} {
		sink := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, c.answer)
		}).(sinks.BatchSink)
		errs, err := sink.DeliverBatch(t.Context(), []sinks.Delivery{numberedDelivery(t, 0), numberedDelivery(t, 1)})
		var e *sinks.Error
		if (err != nil) != (c.all != "") || err != nil && (!strings.Contains(err.Error(), c.all) || !errors.As(err, &e) || !e.Permanent || !e.MayBeDone) {
			t.Errorf("%s: %v", name, err)
		}
		if c.failed != (len(errs) == 2 && errs[0] == nil && errs[1] != nil) {
			t.Errorf("%s: failed %v", name, errs)
		}
	}
}
