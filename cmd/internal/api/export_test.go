package api

import (
	"log/slog"
	"net/http"
)

// Route is a row of the table, for tests.
type Route struct {
	Method, Path string
	Scope        Scope
}

// Routes is the table.
func Routes() (list []Route) {
	for _, r := range new(api).routes() {
		list = append(list, Route{r.method, r.path, r.scope})
	}
	return list
}

// Document is the OpenAPI document.
func Document() []byte { return document }

// Guarded is a handler behind the guard that stands around all of them.
func Guarded(log *slog.Logger, h http.HandlerFunc) http.Handler {
	a := &api{Options: Options{Log: log}}
	return a.guard(h)
}

// Intake is what stands before a door.
func Intake(door http.Handler) http.Handler {
	a := &api{Options: Options{View: func() *View { return &View{} }}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = a.intake(w, r, door) })
}

// ProblemOf is the answer to an error.
func ProblemOf(err error) (status int, header http.Header, detail string) {
	p, _ := problemOf(err)
	return p.Status, p.header, p.Detail
}
