package api

import (
	"net/http"
	"strconv"
	"time"

	"sluice/cmd/internal/doctor"
)

// scanPatience is how long the store may be read for one answer: less than clients
// wait.
const scanPatience = 45 * time.Second

// doctor looks for what is wrong. With store=false it leaves out to read the store.
func (a *api) doctor(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "store")
	if err != nil {
		return err
	}
	scan := scanPatience
	if text := q.Get("store"); text != "" {
		read, err := strconv.ParseBool(text)
		if err != nil {
			return refuse(http.StatusBadRequest, "store: %q is neither true nor false", text)
		}
		if !read {
			scan = 0
		}
	}
	view := a.View()
	broken, expired := map[string]string{}, map[string]time.Time{}
	for _, s := range a.Subscriptions.Subscriptions() {
		if s.Error != "" {
			broken[s.ID] = s.Error
		} else if at := s.CredentialExpires; !at.IsZero() && !at.After(a.now()) {
			expired[s.ID] = at
		}
	}
	report, err := doctor.Running{
		Bus: a.Bus, Store: a.Store, Config: view.Config, Broken: broken, Expired: expired, Dir: view.Dir, Now: a.now(), Scan: scan,
	}.Report(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
