package api

import (
	"fmt"
	"net/http"
	"time"

	"sluice/bus/dispatch"
)

// storySince is how far back an event is looked for unless the caller says.
const storySince = 24 * time.Hour

// story answers with all that is known of an event. Its id comes in the query: ids may
// hold anything, a slash too.
func (a *api) story(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "id", "source", "since")
	if err != nil {
		return err
	}
	ids := q.Values["id"]
	if len(ids) != 1 || ids[0] == "" {
		return refuse(http.StatusBadRequest, "id: give the id of one event")
	}
	since, err := a.ago("since", q.Get("since"))
	if err != nil {
		return err
	}
	if since.IsZero() {
		since = a.now().Add(-storySince)
	}
	stories, err := a.Bus.Story(r.Context(), dispatch.StoryQuery{ID: ids[0], Source: q.Get("source"), Since: since, Patience: scanTime})
	if err != nil {
		return err
	}
	if len(stories.Stories) == 0 {
		return refuse(http.StatusNotFound, "%s", notTold(ids[0], q.Get("source"), stories.Search))
	}
	return writeJSON(w, http.StatusOK, stories)
}

// notTold says where an event was looked for in vain.
func notTold(id, source string, s dispatch.Search) string {
	of := ""
	if source != "" {
		of = fmt.Sprintf(" of the source %q", source)
	}
	where := fmt.Sprintf("among those accepted since %s, nor among the deliveries that wait, nor among the dead letters", s.From.UTC().Format(time.RFC3339))
	text := fmt.Sprintf("there is no event with the id %q%s %s", id, of, where)
	for _, note := range s.Notes {
		text += "; " + note
	}
	if !s.Complete {
		return text + ": give a source or a later since, or try again when the bus has less to do"
	}
	return text + ": look further back with since; it may never have come, or was removed as store.retain says"
}
