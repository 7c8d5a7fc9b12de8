package api

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
)

// guard stands around everything: a handler that panics answers 500, and does not
// take the process along.
func (a *api) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &seenWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			switch p {
			case nil:
				return
			case http.ErrAbortHandler:
				panic(p)
			}
			a.Log.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			if seen.begun {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			a.fail(w, r, refuse(http.StatusInternalServerError, "something is wrong with the bus: its log says what"))
		}()
		h.ServeHTTP(seen, r)
	})
}

// seenWriter knows whether an answer has begun.
type seenWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *seenWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *seenWriter) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController through.
func (w *seenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// elsewhere serves what is not in the table: the paths of the sources.
func (a *api) elsewhere(w http.ResponseWriter, r *http.Request) error {
	if a.preflight(w, r) {
		return nil
	}
	if door, ok := a.View().Doors[r.URL.Path]; ok {
		a.allowOrigin(w, r)
		// The handshake of CloudEvents webhooks asks before there is anything to
		// authorize. The source answers it, and no event comes with it.
		if !door.Verifies && r.Method != http.MethodOptions {
			if err := a.check(r, Publish); err != nil {
				return err
			}
		}
		return a.intake(w, r, door.Handler)
	}
	if methods := a.methodsOf(r); len(methods) > 0 {
		p := refuse(http.StatusMethodNotAllowed, "%s answers %s only", r.URL.Path, strings.Join(methods, ", "))
		p.header = http.Header{"Allow": {strings.Join(methods, ", ")}}
		return p
	}
	return refuse(http.StatusNotFound, "there is nothing at %s: the API is described by /api/v1/openapi.json", r.URL.Path)
}

// methodsOf are the methods that the path of r has.
func (a *api) methodsOf(r *http.Request) (methods []string) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); pattern != "/" && !slices.Contains(methods, method) {
			methods = append(methods, method)
		}
	}
	return methods
}

// Reserved tells whether a path belongs to the bus itself and cannot be a source's.
func Reserved(path string) bool {
	for _, prefix := range []string{"/api", "/console", "/subscriptions"} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return true
		}
	}
	return slices.ContainsFunc(new(api).routes(), func(r route) bool { return r.path == path })
}
