package api

import (
	"net/http"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
)

type statusAnswer struct {
	Version       string       `json:"version"`
	ConfigVersion string       `json:"config_version"`
	Started       time.Time    `json:"started"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Listen        string       `json:"listen"`
	Draining      bool         `json:"draining"`
	Config        configState  `json:"config"`
	Store         storeState   `json:"store"`
	Balance       balanceState `json:"balance"`
	Conservation  conservation `json:"conservation"`
	Unsettled     int          `json:"unsettled"`
	Recovering    bool         `json:"recovering"`
}

// conservation is what the check that nothing vanishes has found.
type conservation struct {
	OK         bool      `json:"ok"`
	Deliveries int64     `json:"deliveries"`
	Events     int64     `json:"events"`
	Checked    time.Time `json:"checked,omitzero"`
	Since      time.Time `json:"since,omitzero"`
}

func conservationOf(c dispatch.Conservation) conservation {
	return conservation{OK: c.OK(), Deliveries: c.Deliveries, Events: c.Events, Checked: c.Checked, Since: c.Since}
}

type configState struct {
	Path         string    `json:"path"`
	LastReload   time.Time `json:"last_reload"`
	LastReloadOK bool      `json:"last_reload_ok"`
	Error        string    `json:"error,omitempty"`
	NeedRestart  []string  `json:"need_restart,omitempty"`
}

type storeState struct {
	Dir        string     `json:"dir"`
	Bytes      int64      `json:"bytes"`
	LimitBytes int64      `json:"limit_bytes"`
	FreeBytes  int64      `json:"free_bytes"` // -1 when there is no volume
	Events     eventsKept `json:"events"`
}

// eventsKept are the numbers of the packs that are kept, and the time of the first.
type eventsKept struct {
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	Oldest time.Time `json:"oldest,omitzero"`
}

type balanceState struct {
	Entered   int64 `json:"entered"`
	Delivered int64 `json:"delivered"`
	Dead      int64 `json:"dead"`
	Discarded int64 `json:"discarded"`
	Damaged   int64 `json:"damaged"`
	Open      int64 `json:"open"`
	Lost      int64 `json:"lost"`
	Queued    int64 `json:"queued"`
	Running   int64 `json:"running"`
	Spilling  int64 `json:"spilling"`
	Backlog   int64 `json:"backlog"`
	Retries   int64 `json:"retries"`
}

func balanceOf(b dispatch.Balance) balanceState {
	return balanceState{
		Entered: b.Entered, Delivered: b.Delivered, Dead: b.Dead, Discarded: b.Discarded, Damaged: b.Damaged, Open: b.Open(), Lost: b.Lost(),
		Queued: b.Queued, Running: b.Running, Spilling: b.Spilling, Backlog: b.Backlog, Retries: b.Retries,
	}
}

func (a *api) status(w http.ResponseWriter, r *http.Request) error {
	info, err := a.Store.Stream(bus.Events).Info(r.Context())
	if err != nil {
		return err
	}
	view, usage, b := a.View(), a.Store.Usage(), a.Bus.Balance()
	answer := statusAnswer{
		Version: view.Version, ConfigVersion: view.Config.Version(), Started: view.Started,
		UptimeSeconds: seconds(a.now().Sub(view.Started)), Listen: view.Listen, Draining: view.Draining,
		Config: configState{
			Path: view.ConfigPath, LastReload: view.LastReload, LastReloadOK: view.ReloadError == nil, NeedRestart: view.NeedRestart,
		},
		Store: storeState{
			Dir: view.Dir, Bytes: usage.Stored, LimitBytes: usage.Limit, FreeBytes: usage.Free,
			Events: eventsKept{First: info.First, Last: info.Last},
		},
		Balance:      balanceOf(b),
		Conservation: conservationOf(a.Bus.Conservation()),
		Unsettled:    a.Bus.Unsettled(),
		Recovering:   a.Bus.Recovering(),
	}
	if info.Packs > 0 {
		answer.Store.Events.Oldest = info.FirstTime
	}
	if view.ReloadError != nil {
		answer.Config.Error = view.ReloadError.Error()
	}
	return writeJSON(w, http.StatusOK, answer)
}

// reload reads the config again. A config that is not taken is no failure of the
// request: the answer says ok: false, and why.
func (a *api) reload(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.Reload(r.Context()))
}
