package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
)

// live says that the process runs.
func (a *api) live(w http.ResponseWriter, _ *http.Request) error {
	writeText(w, http.StatusOK, "ok\n")
	return nil
}

// check is one line of /readyz?verbose.
type check struct {
	name string
	bad  bool // not ready
	text string
}

// ready says whether events are taken. A config that failed to reload is told,
// and no reason to send events elsewhere: the one before it runs.
func (a *api) ready(w http.ResponseWriter, r *http.Request) error {
	view := a.View()
	checks := []check{a.checkStore(r.Context()), checkConfig(view), checkIntake(view), a.checkConservation()}
	for _, s := range a.Bus.Unchosen() {
		checks = append(checks, checkUnchosen(s))
	}
	status, verdict := http.StatusOK, "ok\n"
	for _, c := range checks {
		if c.bad {
			status, verdict = http.StatusServiceUnavailable, "not ready: "+c.name+": "+c.text+"\n"
			break
		}
	}
	if !r.URL.Query().Has("verbose") {
		writeText(w, status, verdict)
		return nil
	}
	var b strings.Builder
	for _, c := range checks {
		sign := "[+]"
		if c.bad {
			sign = "[-]"
		}
		fmt.Fprintf(&b, "%s%s %s\n", sign, c.name, c.text)
	}
	writeText(w, status, b.String()+verdict)
	return nil
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // who hangs up has no use for an error
}

// checkPatience is how long the store may take to say how it is.
const checkPatience = 2 * time.Second

func (a *api) checkStore(ctx context.Context) check {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	if _, err := a.Store.Stream(bus.Events).Info(ctx); err != nil {
		return check{"store", true, "does not answer: " + err.Error()}
	}
	u := a.Store.Usage()
	text := fmt.Sprintf("ok: %d bytes stored", u.Stored)
	if u.Limit > 0 {
		text += fmt.Sprintf(" of %d", u.Limit)
	}
	return check{"store", false, text}
}

func checkConfig(view *View) check {
	text := fmt.Sprintf("ok: %s since %s", view.Config.Version(), view.LastReload.UTC().Format(time.RFC3339))
	if view.ReloadError != nil {
		text = fmt.Sprintf("the last reload failed at %s; %s still runs: %s",
			view.LastReload.UTC().Format(time.RFC3339), view.Config.Version(), view.ReloadError)
	}
	if len(view.NeedRestart) > 0 {
		text += "; a restart is needed for " + strings.Join(view.NeedRestart, ", ")
	}
	return check{"config", false, text}
}

func checkIntake(view *View) check {
	if view.Draining {
		return check{"intake", true, "shutting down"}
	}
	return check{"intake", false, "ok"}
}

// checkConservation tells of what has vanished. That is no reason to send events
// elsewhere: somebody has to look.
func (a *api) checkConservation() check {
	c := a.Bus.Conservation()
	text := "ok"
	if !c.OK() {
		text = fmt.Sprintf("%d deliveries and %d events are not accounted for since %s: `sluice doctor` explains it",
			c.Deliveries, c.Events, c.Since.UTC().Format(time.RFC3339))
	}
	return check{"conservation", false, text}
}

// checkUnchosen tells of a sink that was taken out over a restart.
func checkUnchosen(s dispatch.SinkStatus) check {
	return check{"sinks", false, fmt.Sprintf("%s is not in the config, and %d deliveries wait for it: put it back, or write removed_sinks: {%s: keep | dead_letter | drop}",
		s.Name, s.Waiting(), s.Name)}
}

// showMetrics is /metrics.
func (a *api) showMetrics(w http.ResponseWriter, r *http.Request) error {
	a.metrics.ServeHTTP(w, r)
	return nil
}
