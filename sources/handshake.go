package sources

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sluice/config/value"
)

// Handshake is how a door answers a sender that asks whether it may deliver there:
// the abuse protection of CloudEvents' HTTP 1.1 Web Hooks, section 4. It is consent
// and no proof: who sends has to be verified all the same.
type Handshake struct {
	Origins []string   `yaml:"origins" doc:"The senders that may deliver, by the host name they give, such as events.example.com, or * for all."`
	Rate    value.Rate `yaml:"rate" doc:"How many requests a sender is told that it may make, such as 120/m."`
}

func (h *Handshake) validate() value.Faults {
	var faults value.Faults
	if h == nil {
		return nil
	}
	if len(h.Origins) == 0 {
		faults.Add("origins", `is empty: name the senders that may deliver, such as [events.example.com], or ["*"] for all`)
	}
	for i, origin := range h.Origins {
		if origin == "" || strings.ContainsAny(origin, "/: ,") {
			faults.Add(fmt.Sprintf("origins[%d]", i), "is not a host name: write it without a scheme, a port and a path, such as events.example.com")
		}
	}
	if !h.Rate.Unlimited() && h.perMinute() < 1 {
		faults.Add("rate", "is less than one in a minute, which the protocol cannot say")
	}
	return faults
}

func (h *Handshake) perMinute() int64 {
	return int64(min(math.Floor(h.Rate.PerSecond()*60+1e-9), math.MaxInt32))
}

// before answers the handshake and leaves everything else to next. A nil Handshake
// leaves it all.
func (h *Handshake) before(next http.Handler) http.Handler {
	if h == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		h.answer(w.Header(), r.Header)
		w.WriteHeader(http.StatusOK)
	})
}

// answer gives consent. Without the headers there is none, which is the answer to
// a sender that is not among the origins.
func (h *Handshake) answer(answer, asked http.Header) {
	answer.Set("Allow", http.MethodPost)
	origin := asked.Get("Webhook-Request-Origin")
	allowed := slices.ContainsFunc(h.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
	if origin == "" || !allowed {
		return
	}
	answer.Set("Webhook-Allowed-Origin", origin)
	wanted, err := strconv.ParseInt(asked.Get("Webhook-Request-Rate"), 10, 32)
	switch {
	case h.Rate.Unlimited():
		answer.Set("Webhook-Allowed-Rate", "*")
	case err == nil && wanted > 0:
		answer.Set("Webhook-Allowed-Rate", strconv.FormatInt(min(wanted, h.perMinute()), 10))
	default:
		answer.Set("Webhook-Allowed-Rate", strconv.FormatInt(h.perMinute(), 10))
	}
}
