package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// Running is a bus that runs.
type Running struct {
	Bus     *dispatch.Dispatcher
	Store   bus.Log
	Config  *config.Config
	Broken  map[string]string    // why a subscription cannot be used, by its id
	Expired map[string]time.Time // since when the token of one is not good any more, by its id
	Dir     string               // of the store, for the commands in the findings; "" in memory
	Now     time.Time            // what time it is
	Scan    time.Duration
}

// Report looks at everything. Reading the store may take until Scan is over; 0 leaves
// that out.
func (o Running) Report(ctx context.Context) (*Report, error) {
	r := &Report{OK: true, Checked: o.Now}
	r.checkConservation(o.Bus.Conservation())
	for _, f := range o.Bus.Faults() {
		r.add(storeFinding(f, ""))
	}
	r.checkLost(o.Bus.LostJobs(), o.Now)
	if o.Scan > 0 {
		limited, cancel := context.WithTimeout(ctx, o.Scan)
		defer cancel()
		if err := r.checkStore(limited, o.Store, fmt.Sprintf("stop the server and run `sluice doctor --dir %s --repair`", o.Dir)); err != nil {
			return nil, err
		}
	}
	for _, s := range o.Config.Sources {
		if n := o.Bus.Rejections(s.Name); n > 0 {
			r.rejections(s.Name, strconv.Itoa(n))
		}
	}
	r.checkSubscriptions(o.Broken, o.Expired)
	r.checkSinks(o.Bus.Sinks(), o.Now)
	if err := r.checkRoom(ctx, o.Store, o.Config, o.Now); err != nil {
		return nil, err
	}
	r.checkSettings(o.Config)
	return r, r.checkClock(ctx, o.Store, o.Now)
}

// toldFor is how long a loss is told of that is made good.
const toldFor = 24 * time.Hour

// checkLost tells what became of deliveries that the store has lost.
func (r *Report) checkLost(jobs []dispatch.Job, now time.Time) {
	for _, job := range jobs {
		switch {
		case job.State == dispatch.JobRunning && job.Unsure():
			r.warn("store", "job "+job.ID, "watch it with `sluice jobs follow "+job.ID+"`; `sluice jobs cancel "+job.ID+"` stops it",
				"what is settled was not known at the start: every retained event is being offered again: %d so far", job.Sent)
		case job.State == dispatch.JobRunning:
			r.warn("store", "job "+job.ID, "watch it with `sluice jobs follow "+job.ID+"`",
				"about %d deliveries were lost in the store; they are being offered again from the retained events: %d so far", job.Lost(), job.Sent)
		case now.Sub(job.Ended) > toldFor:
		case job.Gone > 0 || job.State != dispatch.JobDone:
			r.bad("store", "job "+job.ID, "events that publishers still have can be published again; check the disk", "%s: %s", job.State, job.Note)
		default:
			r.warn("store", "job "+job.ID, "nothing is missing; check the disk", "%s", job.Note)
		}
	}
}

func (r *Report) checkConservation(c dispatch.Conservation) {
	const action = "keep the log and the store's directory, and report it as a fault of sluice"
	if c.Events != 0 {
		r.bad("conservation", "events", action+"; `sluice replay` delivers what is still in the store again",
			"%d accepted events were neither routed nor unmatched, though the router is past them", c.Events)
	}
	for _, s := range c.Sinks {
		r.bad("conservation", s.Sink, action,
			"%d deliveries are not accounted for, since %s: %s: entered %d ≠ delivered %d + dead %d + discarded %d + damaged %d + queued %d + running %d + spilling %d + backlog %d + retries %d",
			s.Lost(), c.Since.UTC().Format(time.RFC3339), s.Explain(), s.Entered, s.Delivered, s.Dead, s.Discarded, s.Damaged,
			s.Queued, s.Running, s.Spilling, s.Backlog, s.Retries)
	}
	if c.Checked.IsZero() {
		r.fine("conservation", "the server has just started: the first comparison is still to come")
	}
	r.fine("conservation", "every event and every delivery is accounted for")
}

// longOpen is how long a breaker may be open before it is worth a word.
const longOpen = 5 * time.Minute

func (r *Report) checkSinks(sinks []dispatch.SinkStatus, now time.Time) {
	for _, s := range sinks {
		waiting := s.Waiting()
		switch {
		case s.State == dispatch.StateRemoved && waiting > 0 && !subscribed(s.Name):
			r.removed(s.Name, fmt.Sprintf("%d deliveries wait", waiting))
		case s.State == dispatch.StatePaused && waiting > 0:
			r.warn("sinks", s.Name, "sluice sinks resume "+s.Name, "it is paused, and %d deliveries wait for it", waiting)
		case s.State == dispatch.StateGone:
			r.warn("sinks", s.Name, "mend the sink, then `sluice sinks resume "+s.Name+"`, or take it out of the config",
				"it answered 410 and is disabled; %d deliveries wait for it", waiting)
		case s.State == dispatch.StateBroken && now.Sub(s.LastOK) > longOpen:
			r.warn("sinks", s.Name, "see `sluice sinks show "+s.Name+"`, and mend the sink", "its breaker is open and nothing has worked for %s: %s; %d deliveries wait for it",
				sinceOK(s.LastOK, now), s.LastError, waiting)
		case s.State == dispatch.StateUnauthorized:
			r.warn("sinks", s.Name, "see `sluice sinks show "+s.Name+"`, mend its credentials, then `sluice dlq redrive --sink "+s.Name+"`",
				"it refuses the credentials, and nothing has worked for %s: %s; %d deliveries wait for it", sinceOK(s.LastOK, now), s.LastError, waiting)
		case s.State == dispatch.StateActive && s.Disconnected() && now.Sub(s.Connection.Since) > longOpen:
			r.warn("sinks", s.Name, "see that its far side runs and can be reached from here", "it has been disconnected for %s: %v; %d deliveries wait for it",
				now.Sub(s.Connection.Since).Round(time.Second), s.Connection.Err, waiting)
		}
		if s.DeadLetters > 0 {
			r.deadLetters(s.Name, fmt.Sprintf("dead letters that are kept: %d", s.DeadLetters))
		}
	}
	r.fine("sinks", "nothing waits for a sink that takes nothing")
	r.fine("dead letters", "there are none")
}

// checkSubscriptions tells of those that are kept and cannot be used, or not for long.
func (r *Report) checkSubscriptions(broken map[string]string, expired map[string]time.Time) {
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		r.bad("sinks", config.SubscriptionPrefix+id, fmt.Sprintf("subscribe again with PUT /subscriptions/%s, or end it with `sluice subscriptions rm %s`", id, id),
			"the subscription %s was taken before and cannot be used any more, so it gets no events: %s", id, broken[id])
	}
	for _, id := range slices.Sorted(maps.Keys(expired)) {
		r.warn("sinks", config.SubscriptionPrefix+id, fmt.Sprintf("give it a new one with PUT /subscriptions/%s", id),
			"the token of the subscription %s was good until %s: its sink may refuse it", id, expired[id].UTC().Format(time.RFC3339))
	}
}

// subscribed tells that a sink is that of a subscription: the config says nothing of it.
func subscribed(sink string) bool { return strings.HasPrefix(sink, config.SubscriptionPrefix) }

func sinceOK(last, now time.Time) string {
	if last.IsZero() {
		return "as long as the server runs"
	}
	return now.Sub(last).Round(time.Second).String()
}

func (r *Report) removed(sink, what string) {
	r.warn("sinks", sink, fmt.Sprintf("put the sink back, or write removed_sinks: {%s: dead_letter} or drop into the config", sink),
		"it is not in the config, and %s for it: they stay until it is back", what)
}

func (r *Report) deadLetters(sink, what string) {
	r.warn("dead letters", sink, fmt.Sprintf("`sluice dlq ls --sink %s` shows why; `sluice dlq redrive --sink %s` sends them again", sink, sink), "%s", what)
}

// rejections tells of what a source could not make an event of.
func (r *Report) rejections(source, n string) {
	r.warn("dead letters", source, "`sluice dlq ls` shows why; mend who sends it", "input of this source that became no event, and is kept: %s", n)
}

// checkSettings looks for settings that do not go together; nil is no config.
func (r *Report) checkSettings(c *config.Config) {
	if c == nil {
		return
	}
	window, age := time.Duration(c.Dedup.Window), time.Duration(c.Store.Retain.Age)
	if age > 0 && window > age {
		r.warn("settings", "dedup.window", "raise store.retain.age to at least dedup.window",
			"dedup remembers events for %s, but a restart knows only those that are kept, for %s", window, age)
	}
	if c.Store.Sync.Every() > 0 {
		r.warn("settings", "store.sync", "write store: {sync: always}", "a loss of power may lose the events of the last %s, though publishers were told that they are stored", c.Store.Sync.Every())
	}
	r.fine("settings", "they go together")
}
