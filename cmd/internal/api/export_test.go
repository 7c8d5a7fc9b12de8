package api

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"sluice/bus/dispatch"
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

// DeadWeight is how large a dead letter counts in a list, and how large it is there.
func DeadWeight(d *dispatch.DeadLetter) (counted, shown int) {
	letter := showDead(d)
	text, err := json.Marshal(letter)
	if err != nil {
		panic(err)
	}
	return letter.weight(), len(text)
}
