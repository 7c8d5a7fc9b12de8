package api

import "net/http"

// Web pages may send events when server.cors says so, and may do nothing else: the
// rest of the API has no such headers.

// corsAge is how long a browser remembers what it may send, in seconds.
const corsAge = "600"

// allowOrigin lets the page that sent r read the answer, if it may send at all.
func (a *api) allowOrigin(w http.ResponseWriter, r *http.Request) bool {
	view := a.View()
	if view.Config == nil || len(view.Config.Server.CORS.Origins) == 0 {
		return false
	}
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !view.Config.Server.CORS.Allows(origin) {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
	return true
}

// preflight answers a browser that asks whether a page may send an event, and
// tells whether r was such a question. Pages that may not get no permission, which
// is the answer.
func (a *api) preflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodOptions || r.Header.Get("Origin") == "" || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if _, door := a.View().Doors[r.URL.Path]; !door && r.URL.Path != "/" && r.URL.Path != "/events" {
		return false
	}
	if a.allowOrigin(w, r) {
		h := w.Header()
		h.Set("Access-Control-Allow-Methods", http.MethodPost)
		// The ce- headers are of any name, so what is asked for is what is allowed.
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
			h.Add("Vary", "Access-Control-Request-Headers")
		}
		h.Set("Access-Control-Max-Age", corsAge)
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}
