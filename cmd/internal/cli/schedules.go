package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/sources"
)

func newSchedulesCommand(e *env) *cobra.Command {
	return newGroup("schedules", "List the schedules, show their next ticks, fire one now.", "  sluice schedules ls",
		newSchedulesLsCommand(e), newSchedulesNextCommand(e), newSchedulesRunCommand(e))
}

func newSchedulesLsCommand(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the schedules with their last and next ticks.",
		Long: `List the cron sources of the server, or with --config those of a config, which needs no
server. LAST is the tick that fired last, NEXT the one that is waited for, both in the
zone of the schedule.`,
		Example: `  sluice schedules ls
  sluice schedules ls --config sluice.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.schedules(c.Context(), path)
			if err != nil {
				return err
			}
			if e.json() {
				return e.printJSON(map[string]any{"schedules": all})
			}
			if len(all) == 0 {
				e.note("no schedules: add a source of the kind cron")
				return nil
			}
			t := newTable("NAME", "SCHEDULE", "ZONE", "LAST", "NEXT", "IN")
			for _, s := range all {
				next, in := "never", ""
				if !s.Next.IsZero() {
					next, in = inZone(s.Next, s.Timezone), span(s.Next.Sub(e.now()))
				}
				t.add(s.Name, s.Schedule, s.Timezone, inZone(s.Last, s.Timezone), next, in)
			}
			return t.print(e.stdout)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "config `file` or directory, in place of the server")
	return cmd
}

// schedules are those of a config, or of the server when no path is given.
func (e *env) schedules(ctx context.Context, path string) ([]api.Schedule, error) {
	if path == "" {
		client, err := e.client()
		if err != nil {
			return nil, err
		}
		all, err := decode[struct{ Schedules []api.Schedule }](client.get(ctx, "api/v1/schedules", nil))
		return all.Schedules, err
	}
	c, err := e.loadConfig(path)
	if err != nil {
		return nil, err
	}
	all := []api.Schedule{}
	for _, s := range c.Sources {
		if settings, ok := s.Settings.(*sources.Cron); ok {
			all = append(all, api.ScheduleOf(s.Name, settings, sources.Ticks{}, e.now()))
		}
	}
	return all, nil
}

// zoneTime is a moment as the clock on a wall shows it.
const zoneTime = "2006-01-02 15:04:05 -07:00"

// inZone is a moment in a zone; "" for none.
func inZone(t time.Time, zone string) string {
	if t.IsZero() {
		return ""
	}
	if loc, err := time.LoadLocation(zone); err == nil {
		t = t.In(loc)
	}
	return t.Format(zoneTime)
}

// nextFlags are the flags of schedules next.
type nextFlags struct {
	path, expr, zone, from string
}

// mostTicks is how many ticks can be asked for.
const mostTicks = 1000

func newSchedulesNextCommand(e *env) *cobra.Command {
	var f nextFlags
	cmd := &cobra.Command{
		Use:   "next [NAME] [N]",
		Short: "Show the next ticks of a schedule, or of all of them.",
		Long: `Show the next N ticks (5 unless told) of a schedule of the server, or with --config of a
config; with --expr of any expression, without either. Without a name they are those of
all schedules, by time; a schedule whose name is a number is written with N behind it. The
ticks are those of the schedule, without jitter. A note tells where the clocks of the zone
change: a time that they skip has no tick, one that they show twice has one, the first.`,
		Example: `  sluice schedules next 10
  sluice schedules next nightly
  sluice schedules next nightly 10 --config sluice.yaml
  sluice schedules next --expr "cron(30 2 * * ? *)" --timezone Europe/Berlin --from 2026-03-27T00:00:00Z`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			name, n, err := f.ask(args)
			if err != nil {
				return err
			}
			from, err := f.after(e.now())
			if err != nil {
				return err
			}
			if f.expr == "" && name == "" {
				return e.printAllTicks(c.Context(), f.path, from, n)
			}
			settings, err := e.scheduleOf(c.Context(), f, name)
			if err != nil {
				return err
			}
			return e.printTicks(settings, from, n)
		},
	}
	cmd.Flags().StringVarP(&f.path, "config", "c", "", "config `file` or directory, in place of the server")
	cmd.Flags().StringVar(&f.expr, "expr", "", "`expression` to look at, in place of a schedule")
	cmd.Flags().StringVar(&f.zone, "timezone", "UTC", "time `zone` of --expr")
	cmd.Flags().StringVar(&f.from, "from", "", "show the ticks after this `time` (RFC 3339) rather than now")
	cmd.MarkFlagsMutuallyExclusive("config", "expr")
	return cmd
}

// ask reads the arguments. Without a name the ticks of all schedules are wanted.
func (f *nextFlags) ask(args []string) (name string, n int, err error) {
	if f.expr != "" && len(args) > 1 {
		return "", 0, usagef("--expr is the schedule: leave %q out", args[0])
	}
	if f.expr == "" && len(args) > 0 {
		if _, err := strconv.Atoi(args[0]); err != nil || len(args) > 1 {
			name, args = args[0], args[1:]
		}
	}
	n = 5
	if len(args) > 0 {
		if n, err = strconv.Atoi(args[0]); err != nil || n < 1 || n > mostTicks {
			return "", 0, usagef("%q is not a number of ticks from 1 to %d", args[0], mostTicks)
		}
	}
	return name, n, nil
}

// after is the time that the ticks come after.
func (f *nextFlags) after(now time.Time) (time.Time, error) {
	if f.from == "" {
		return now, nil
	}
	at, err := time.Parse(time.RFC3339, f.from)
	if err != nil {
		return at, usagef("--from %q is no time: write one such as 2026-03-27T00:00:00Z", f.from)
	}
	return at, nil
}

// scheduleOf is the schedule that is asked for.
func (e *env) scheduleOf(ctx context.Context, f nextFlags, name string) (*sources.Cron, error) {
	if f.expr != "" {
		settings := sources.NewCron()
		settings.Schedule, settings.Timezone = f.expr, f.zone
		return settings, nil
	}
	all, err := e.schedules(ctx, f.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		if s.Name == name {
			return cronOf(s), nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("there is no schedule %q: there are %s", name, join(names, "none"))
}

// cronOf are the settings of a schedule that decide on its ticks.
func cronOf(s api.Schedule) *sources.Cron {
	settings := sources.NewCron()
	settings.Schedule, settings.Timezone, settings.Start, settings.End = s.Schedule, s.Timezone, s.Start, s.End
	return settings
}

// tickDoc is one tick in JSON.
type tickDoc struct {
	Name     string    `json:"name,omitempty"`     // of the schedule, among those of others
	Timezone string    `json:"timezone,omitempty"` // the same
	Local    string    `json:"local"`              // with the offset of the zone
	UTC      time.Time `json:"utc"`
	Note     string    `json:"note,omitempty"`
}

// ticksOf are the next n ticks of a schedule after a time, or those that it still has.
func ticksOf(settings *sources.Cron, after time.Time, n int) ([]tickDoc, error) {
	times, err := settings.Times()
	if err != nil {
		return nil, usagef("%s: %w", settings.Schedule, err)
	}
	ticks := []tickDoc{}
	var before time.Time // the tick before
	for len(ticks) < n {
		tick, ok := times.Next(after)
		if !ok {
			break
		}
		ticks = append(ticks, tickDoc{Local: tick.Time.Format(time.RFC3339), UTC: tick.Time.UTC(), Note: tickNote(tick, before)})
		after, before = tick.Time, tick.Time
	}
	return ticks, nil
}

// printAllTicks prints the next n ticks of all schedules by time, and by name where they
// come together.
func (e *env) printAllTicks(ctx context.Context, path string, after time.Time, n int) error {
	all, err := e.schedules(ctx, path)
	if err != nil {
		return err
	}
	ticks := []tickDoc{}
	for _, s := range all {
		some, err := ticksOf(cronOf(s), after, n)
		if err != nil {
			return err
		}
		for _, tick := range some {
			tick.Name, tick.Timezone = s.Name, s.Timezone
			ticks = append(ticks, tick)
		}
	}
	slices.SortStableFunc(ticks, func(a, b tickDoc) int {
		return cmp.Or(a.UTC.Compare(b.UTC), strings.Compare(a.Name, b.Name))
	})
	ticks = ticks[:min(n, len(ticks))]
	if e.json() {
		return e.printJSON(map[string]any{"ticks": ticks})
	}
	if len(all) == 0 {
		e.note("no schedules: add a source of the kind cron")
		return nil
	}
	return e.printTickTable(ticks, n)
}

func (e *env) printTicks(settings *sources.Cron, after time.Time, n int) error {
	ticks, err := ticksOf(settings, after, n)
	if err != nil {
		return err
	}
	if e.json() {
		return e.printJSON(map[string]any{"schedule": settings.Schedule, "timezone": settings.Timezone, "ticks": ticks})
	}
	return e.printTickTable(ticks, n)
}

// printTickTable prints the ticks of n that there are; with names when they have them.
func (e *env) printTickTable(ticks []tickDoc, n int) error {
	named := len(ticks) > 0 && ticks[0].Name != ""
	heads := []string{"TIME", "DAY", "UTC", "NOTE"}
	if named {
		heads = slices.Insert(heads, 3, "NAME")
	}
	t := newTable(heads...)
	for _, d := range ticks {
		local, err := time.Parse(time.RFC3339, d.Local)
		if err != nil {
			return err
		}
		cells := []any{local.Format(zoneTime), local.Format("Mon"), d.UTC.Format(time.RFC3339), cmp.Or(d.Note, "-")}
		if named {
			cells = slices.Insert(cells, 3, any(d.Name))
		}
		t.add(cells...)
	}
	if len(ticks) < n {
		e.note("%s, and no more after that", plural(len(ticks), "tick"))
	}
	return t.print(e.stdout)
}

// tickNote says what the clocks do between a tick and the one before.
func tickNote(tick sources.Tick, before time.Time) string {
	var notes []string
	if n := len(tick.Skipped); n > 0 {
		first, last := tick.Skipped[0], tick.Skipped[n-1]
		what := first.Format("2006-01-02 15:04")
		if n > 1 {
			what += " to " + last.Format("15:04")
			if first.YearDay() != last.YearDay() {
				what = fmt.Sprintf("%s and %d more", first.Format("2006-01-02 15:04"), n-1)
			}
		}
		notes = append(notes, what+" is skipped: there is no such time that day")
	}
	if tick.Again {
		notes = append(notes, "the clocks show this time twice: it fires the first time only")
	}
	if !before.IsZero() && before.Format("-07:00") != tick.Time.Format("-07:00") {
		notes = append(notes, "clocks changed from "+before.Format("-07:00"))
	}
	return strings.Join(notes, "; ")
}

func newSchedulesRunCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "run NAME",
		Short: "Fire a schedule now.",
		Long: `Make the server fire a schedule now, beside its ticks: they come when they would have.
The event has "trigger": "manual" in its data, and an id of its own.`,
		Example: "  sluice schedules run nightly",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			doc, err := client.post(c.Context(), "api/v1/schedules/"+url.PathEscape(args[0])+"/run", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			ran, err := decode[struct{ Event struct{ ID string } }](doc, nil)
			if err != nil {
				return err
			}
			e.printf("fired %s: event %s\n", args[0], ran.Event.ID)
			return nil
		},
	}
}
