package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/sources"
)

// limited is an answer with a limit in time.
type limited struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (l *limited) SetWriteDeadline(t time.Time) error {
	l.until = t
	return nil
}

// Who waits for a reply is answered even when the wait is longer than the server's limit
// for an answer; for others that stays as it is.
func TestAnswersThatWaitHaveTime(t *testing.T) {
	t.Parallel()
	for prefer, waits := range map[string]bool{"": false, "wait=300": true} {
		w, r := &limited{httptest.NewRecorder(), time.Time{}}, httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		if prefer != "" {
			r.Header.Set("Prefer", prefer)
		}
		api.Intake(http.NotFoundHandler()).ServeHTTP(w, r)
		if !waits && !w.until.IsZero() || waits && time.Until(w.until) <= sources.MaxWait {
			t.Errorf("Prefer: %q: the answer has to be written until %s", prefer, w.until)
		}
	}
}
