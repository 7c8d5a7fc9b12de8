package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/rules"
)

// stored is one event of the log.
type stored struct {
	Position string          `json:"position"`
	Accepted time.Time       `json:"accepted"`
	Event    json.RawMessage `json:"event"`
}

// scan is one look through the log.
type scan struct {
	ids      []string
	set      *rules.Set // nil: every event
	until    time.Time
	limit    int
	deadline time.Time

	list []stored
	size int
	next bus.Position // where to go on; zero at the end
}

func (a *api) listEvents(w http.ResponseWriter, r *http.Request) error {
	q, err := queryOf(r, "since", "until", "pattern", "id", "limit", "from")
	if err != nil {
		return err
	}
	s := scan{ids: q.Values["id"], deadline: a.now().Add(scanTime), list: []stored{}}
	if s.limit, err = q.limit(); err != nil {
		return err
	}
	from, err := q.from()
	if err != nil {
		return err
	}
	since, until, err := a.span(q.Get("since"), q.Get("until"))
	if err != nil {
		return err
	}
	s.until = until
	if s.set, err = dispatch.PatternFilter([]byte(q.Get("pattern"))); err != nil {
		return err
	}
	stream := a.Store.Stream(bus.Events)
	if !since.IsZero() {
		seq, err := stream.Since(r.Context(), since)
		if err != nil {
			return err
		}
		if start := (bus.Position{Seq: seq}); from.Less(start) {
			from = start
		}
	}
	if err := s.read(r.Context(), stream, from); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, page("events", s.list, s.next))
}

func (s *scan) read(ctx context.Context, stream bus.Stream, from bus.Position) error {
	reader, err := stream.Read(ctx, "", max(from.Seq, 1))
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	for {
		pack, ok, err := reader.TryNext(ctx)
		if err != nil || !ok || !s.until.IsZero() && pack.Time.After(s.until) {
			return err
		}
		for i, rec := range pack.Records {
			pos := bus.Position{Seq: pack.Seq, Index: i}
			if pos.Less(from) {
				continue
			}
			if len(s.list) == s.limit || s.size >= answerBytes || time.Now().After(s.deadline) {
				s.next = pos
				return nil
			}
			s.take(rec, pos, pack.Time)
		}
	}
}

// take adds an event that was asked for. A damaged record is left out: the router
// has reported it.
func (s *scan) take(rec []byte, pos bus.Position, at time.Time) {
	e, err := bus.DecodeRecord(rec)
	if err != nil || len(s.ids) > 0 && !slices.Contains(s.ids, e.ID()) {
		return
	}
	if s.set != nil {
		if hits, err := s.set.MatchEvent(e, nil); err != nil || len(hits) == 0 {
			return
		}
	}
	s.size += e.Size()
	s.list = append(s.list, stored{pos.String(), at, eventJSON(e)})
}
