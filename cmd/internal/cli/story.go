package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newEventsShowCommand(e *env) *cobra.Command {
	var source, since string
	var whole bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell the whole story of an event.",
		Long: `Tell all that is known of an event: when it came, the rules it went by, every attempt at its
deliveries, retries that wait, dead letters and what a redrive made of them, and the events
that functions replied with, each with its own story. What is not known any more is said:
attempts are remembered in memory, the newest some ten thousand of them, and over a restart
unless the bus was killed; dead letters and retries are kept on disk with all of theirs.

Only id and source together name one event: without --source there may be several.`,
		Example: `  sluice events show order-17
  sluice events show order-17 --source shop --since 7d -o json
  sluice events show order-17 --event | sluice explain --config sluice.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if whole {
				return e.showEvents(c.Context(), args[0], source)
			}
			from, err := when(e.now(), "since", since)
			if err != nil {
				return err
			}
			query := url.Values{"id": args}
			setText(query, "source", source)
			setTime(query, "since", from)
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/story", query)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			stories, err := decode[dispatch.Stories](doc, nil)
			if err == nil {
				e.tellStories(stories)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "only the event of this `source`")
	cmd.Flags().StringVar(&since, "since", "24h", "look for what was accepted at or after this `time`: 2026-01-02T15:04:05Z, or 24h back from now")
	cmd.Flags().BoolVar(&whole, "event", false, "show the event itself instead, as a CloudEvent in JSON")
	return cmd
}

// showEvents prints the events with an id as they came in.
func (e *env) showEvents(ctx context.Context, id, source string) error {
	api, err := e.client()
	if err != nil {
		return err
	}
	l, err := api.list(ctx, "api/v1/events", "events", url.Values{"id": {id}}, page{})
	if err != nil {
		return err
	}
	shown := listing{next: l.next}
	for _, item := range l.items {
		s, err := decode[storedDoc](item, nil)
		if err != nil {
			return err
		}
		if source == "" || briefOf(s.Event).Source == source {
			shown.items = append(shown.items, item)
		}
	}
	if len(shown.items) == 0 {
		return fmt.Errorf("the server keeps no event with the id %q: it may never have come, or was removed as store.retain says", id)
	}
	if e.json() {
		return shown.print(e, "events")
	}
	for _, item := range shown.items {
		s, err := decode[storedDoc](item, nil)
		if err != nil {
			return err
		}
		e.note("at %s, accepted %s (%s)", s.Position, stamp(s.Accepted), ago(e.now(), s.Accepted))
		if err := e.printJSON(s.Event); err != nil {
			return err
		}
	}
	return nil
}

// teller prints stories.
type teller struct {
	e     *env
	paint paint
	day   string // of the line before
}

func (e *env) tellStories(all dispatch.Stories) {
	t := &teller{e: e, paint: e.paint(e.stdout)}
	for i, s := range all.Stories {
		if i > 0 {
			e.printf("\n")
		}
		t.tell(s, "")
	}
	for _, note := range all.Search.Notes {
		t.line("", t.paint.yellow("! "+oneLine(note)))
	}
	if len(all.Stories) > 1 {
		e.note("%d sources have an event with this id: choose one with --source", len(all.Stories))
	}
}

func (t *teller) line(indent, text string) { t.e.printf("%s%s\n", indent, text) }

// tell prints the story of one event, its replies indented below what they answer.
func (t *teller) tell(s *dispatch.Story, indent string) {
	ev := briefOf(s.Event)
	head := t.paint.bold(oneLine(s.ID)) + " " + oneLine(ev.Type) + t.paint.dim(" from "+oneLine(s.Source))
	if ev.Subject != "" {
		head += t.paint.dim(" about " + oneLine(ev.Subject))
	}
	t.line(indent, head)
	indent += "  "
	if s.Cause != nil && indent == "  " {
		t.cause(s.Cause, indent)
	}
	below := replyPlaces(s)
	replies := func(at int) {
		for _, r := range below[at] {
			t.reply(r.Story, r.sink, indent)
		}
	}
	replies(-1)
	for i := range s.Timeline {
		h := &s.Timeline[i]
		if h.Stage != dispatch.StageReplied || !told(h, s.Replies) {
			t.happened(h, s, indent)
		}
		replies(i)
	}
	for i := range s.Deliveries {
		t.stands(&s.Deliveries[i], indent)
	}
	for _, note := range s.Notes {
		t.line(indent, t.paint.yellow("! "+oneLine(note)))
	}
}

// reply is an event that another one caused, and the sink that answered with it; "" when
// that is not known.
type reply struct {
	*dispatch.Story
	sink string
}

// replyPlaces says below which line of the timeline each reply is told; -1 is above all.
// That is the line of the delivery that it answers: it was stored a moment before that
// counted as made. Where that is not known, its time says.
func replyPlaces(s *dispatch.Story) map[int][]reply {
	places := map[int][]reply{}
	for _, r := range s.Replies {
		is := func(ref dispatch.EventRef) bool { return ref.ID == r.ID && ref.Source == r.Source }
		at := slices.IndexFunc(s.Timeline, func(h dispatch.Happening) bool { return slices.ContainsFunc(h.Replies, is) })
		if at >= 0 {
			made := slices.IndexFunc(s.Timeline[at:], func(h dispatch.Happening) bool {
				return h.Stage == dispatch.StageDelivered && h.Delivery == s.Timeline[at].Delivery
			})
			sink := s.Timeline[at].Sink
			at += max(made, 0)
			places[at] = append(places[at], reply{r, sink})
			continue
		}
		for at < len(s.Timeline)-1 && !s.Timeline[at+1].At.After(came(r)) {
			at++
		}
		places[at] = append(places[at], reply{r, ""})
	}
	for _, below := range places {
		slices.SortStableFunc(below, func(a, b reply) int { return came(a.Story).Compare(came(b.Story)) })
	}
	return places
}

// came is when an event was accepted.
func came(s *dispatch.Story) time.Time {
	if len(s.Accepted) == 0 {
		return time.Time{}
	}
	return s.Accepted[0].At
}

// told tells whether the stories of all the replies are told.
func told(h *dispatch.Happening, replies []*dispatch.Story) bool {
	return !slices.ContainsFunc(h.Replies, func(r dispatch.EventRef) bool {
		return !slices.ContainsFunc(replies, func(s *dispatch.Story) bool { return s.ID == r.ID && s.Source == r.Source })
	})
}

func (t *teller) cause(c *dispatch.StoryCause, indent string) {
	text := "answers " + oneLine(c.ID)
	for _, ref := range c.Found {
		text += ", " + oneLine(ref.Type) + " from " + oneLine(ref.Source) + ", accepted " + stamp(ref.Accepted)
	}
	if len(c.Found) == 0 {
		text += ", which was not found in the log"
	}
	if c.Correlation != "" && c.Correlation != c.ID {
		text += "; it began with " + oneLine(c.Correlation)
	}
	t.line(indent, t.paint.dim(text))
}

func (t *teller) reply(s *dispatch.Story, sink, indent string) {
	text := "caused"
	if sink != "" {
		text = "reply of " + oneLine(sink)
	}
	t.at(came(s), t.paint.cyan(text), indent)
	t.tell(s, indent+"  ")
}

// at prints what happened at a time, below its day when that is a new one.
func (t *teller) at(at time.Time, text, indent string) {
	at = at.UTC()
	if day := at.Format(time.DateOnly); day != t.day {
		t.day = day
		t.line(indent, t.paint.dim(day))
	}
	t.line(indent, t.paint.dim(at.Format("15:04:05.000Z"))+"  "+text)
}

// happened prints one line of a timeline, and what the sink answered to a failure.
func (t *teller) happened(h *dispatch.Happening, s *dispatch.Story, indent string) {
	p := t.paint
	var stage, text string
	switch h.Stage {
	case dispatch.StageAccepted:
		stage, text = p.cyan("accepted   "), t.accepted(h, s)
	case dispatch.StageDelivered:
		stage, text = p.green("delivered  "), t.attempt(h)
	case dispatch.StageRetry:
		stage, text = p.yellow("failed     "), t.attempt(h)
		if h.After > 0 {
			text += "; again in " + span(seconds(h.After))
		}
	case dispatch.StageLeased:
		stage, text = "leased     ", t.attempt(h)
		if h.After > 0 {
			text += "; it has " + span(seconds(h.After))
		}
	case dispatch.StageDeadLetter:
		stage, text = p.red("dead letter"), t.attempt(h)+t.letter(h, s)
	case dispatch.StageReplied:
		stage, text = p.cyan("replied    "), t.where(h)+" with "+refs(h.Replies)
	case dispatch.StageRedriven:
		stage, text = p.cyan("redriven   "), t.redriven(h)
	case dispatch.StagePurged:
		stage, text = p.red("purged     "), t.where(h)+": dead letter "+oneLine(h.Letter)+" was removed by hand"
	default:
		stage, text = oneLine(h.Stage), t.attempt(h)
	}
	t.at(h.At, stage+"  "+text, indent)
	if h.Answer != "" {
		t.line(indent, "               "+p.dim("it answered: "+cut(oneLine(h.Answer))))
	}
}

func (t *teller) accepted(h *dispatch.Happening, s *dispatch.Story) string {
	text := "at " + oneLine(h.Position)
	switch {
	case h.Rules == nil && len(s.Rules) == 0:
		text += "; no rule matches it now"
	case h.Rules == nil:
		var names []string
		for _, r := range s.Rules {
			names = append(names, r.Name)
		}
		text += "; by the rules of now: " + oneLine(strings.Join(names, ", "))
	case len(h.Rules) == 0:
		text += "; " + t.paint.yellow("no rule matched")
	default:
		text += "; rules: " + oneLine(strings.Join(h.Rules, ", "))
	}
	for _, m := range h.Misses {
		text += "; where of " + oneLine(m.Rule)
		if m.Error == "" {
			text += " was false"
		} else {
			text += " had no answer: " + oneLine(m.Error)
		}
	}
	return text
}

// where is the sink and the rule.
func (t *teller) where(h *dispatch.Happening) string {
	rule := oneLine(h.Rule)
	switch {
	case h.Replay != "" && h.Rule == dispatch.ReplayRule:
		rule = "replay " + oneLine(h.Replay)
	case h.Replay != "":
		rule += ", replay " + oneLine(h.Replay)
	}
	return "→ " + oneLine(h.Sink) + t.paint.dim(" ("+rule+")")
}

// attempt is one attempt in words.
func (t *teller) attempt(h *dispatch.Happening) string {
	text := t.where(h) + ":"
	if h.Attempt > 0 {
		text += " attempt " + strconv.Itoa(h.Attempt)
	}
	text += ", took " + span(seconds(h.Seconds))
	switch {
	case h.Error != "":
		text += ": " + oneLine(h.Error)
	case h.Status != 0:
		text += ": " + status(h.Status)
	case h.Class != "" && h.Stage != dispatch.StageDelivered:
		text += ": " + oneLine(h.Class)
	}
	return text
}

// letter is the end of the line of a dead letter: why, and where it is now.
func (t *teller) letter(h *dispatch.Happening, s *dispatch.Story) string {
	text := ""
	if h.Reason != "" {
		text = "; given up: " + oneLine(h.Reason)
	}
	there := slices.ContainsFunc(s.Deliveries, func(d dispatch.StoryDelivery) bool { return h.Letter != "" && d.Letter == h.Letter })
	if there {
		text += "; `sluice dlq show " + oneLine(h.Letter) + "`"
	}
	return text
}

func (t *teller) redriven(h *dispatch.Happening) string {
	text := t.where(h) + ": dead letter " + oneLine(h.Letter) + " by job " + oneLine(h.Job)
	for _, to := range h.To {
		if to.Delivery != h.Delivery {
			text += ", to " + oneLine(to.Sink)
		}
	}
	return text
}

// refs is a list of events in words.
func refs(all []dispatch.EventRef) string {
	var names []string
	for _, r := range all {
		names = append(names, oneLine(r.ID)+" "+oneLine(r.Type))
	}
	return strings.Join(names, ", ")
}

// stands prints how a delivery stands that has not ended, or of which nobody knows
// how it did. The timeline tells of the others.
func (t *teller) stands(d *dispatch.StoryDelivery, indent string) {
	text := map[string]string{
		dispatch.DeliveryQueued:   "waits for its turn",
		dispatch.DeliveryInFlight: "an attempt is under way",
		dispatch.DeliveryBacklog:  "waits in the backlog, on disk",
		dispatch.DeliveryRetry:    "waits for its next attempt",
		dispatch.DeliveryLeased:   "the sink has begun, and is to say how it ended",
		dispatch.DeliveryOnItsWay: "is on its way",
		dispatch.DeliveryEnded:    "has ended, and how is not remembered: it was delivered or discarded, or its dead letter is gone",
		dispatch.DeliveryUnknown:  "nothing is remembered of it; the rules of now would make it",
	}[d.State]
	if text == "" {
		return
	}
	if !d.Due.IsZero() {
		if in := d.Due.Sub(t.e.now()); in > 0 {
			text += ", until " + stamp(d.Due) + " (in " + span(in) + ")"
		} else {
			text += ", due since " + stamp(d.Due)
		}
	}
	if d.Attempts > 0 {
		text += "; " + plural(d.Attempts, "attempt") + " so far"
	}
	where := "→ " + oneLine(d.Sink) + t.paint.dim(" ("+oneLine(d.Rule)+")")
	t.line(indent, t.paint.bold("now")+"            "+where+": "+text)
}

// answerShown is how much of an answer is shown: `sluice dlq show` shows it whole.
const answerShown = 200

// cut shortens text.
func cut(s string) string {
	if len(s) <= answerShown {
		return s
	}
	return strings.ToValidUTF8(s[:answerShown], "") + "…"
}
