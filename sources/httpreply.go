package sources

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/bus"
)

// MaxWait is the longest that a request may wait for a reply: a server has to leave its
// answer so much time.
const MaxWait = 5 * time.Minute

// preferredWait is the time in Prefer: wait=10, in seconds (RFC 7240 §4.3). It is 0
// for none, and for what cannot be read: a preference is no demand.
func preferredWait(h http.Header) time.Duration {
	for _, line := range h["Prefer"] {
		for preference := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			value, _, _ = strings.Cut(value, ";")
			seconds, err := strconv.ParseUint(strings.Trim(value, ` "`), 10, 31)
			if err != nil {
				return 0
			}
			return min(time.Duration(seconds)*time.Second, MaxWait)
		}
	}
	return 0
}

// answerReply waits for a reply and answers with it; it is false when none came in
// time, none can come any more, or nobody waits any more.
func answerReply(w http.ResponseWriter, r *http.Request, reply <-chan bus.Event, wait time.Duration) bool {
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case e, ok := <-reply:
		if !ok {
			return false
		}
		e.AppendHTTPHeader(w.Header())
		w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
		w.WriteHeader(http.StatusOK)
		// Who does not read the answer finds the reply on the bus.
		_, _ = w.Write(e.Data())
		return true
	case <-late.C:
	case <-r.Context().Done():
	}
	return false
}
