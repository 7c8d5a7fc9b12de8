package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newJobsCommand(e *env) *cobra.Command {
	every := func(dispatch.Job) bool { return true }
	return newGroup("jobs", "List, follow and cancel redrives and replays.", "  sluice jobs ls",
		newJobsLsCommand(e, "List the redrives and replays, newest first.", "  sluice jobs ls", every),
		newJobsShowCommand(e), newJobsFollowCommand(e),
		newJobsCancelCommand(e, "Stop a job; what it has sent stays sent.", "  sluice jobs cancel 3f9c2a10be"))
}

func newJobsLsCommand(e *env, short, example string, chosen func(dispatch.Job) bool) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   short,
		Long:    short + " The server remembers the last hundred that ended.",
		Example: example,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			return e.listJobs(c.Context(), api, chosen)
		},
	}
}

func (e *env) listJobs(ctx context.Context, api *client, chosen func(dispatch.Job) bool) error {
	all, err := decode[struct{ Jobs []json.RawMessage }](api.get(ctx, "api/v1/jobs", nil))
	if err != nil {
		return err
	}
	t := newTable("ID", "KIND", "STATE", "STARTED", "LOOKED AT", "CHOSEN", "SENT", "SKIPPED", "NOTE")
	docs := []json.RawMessage{}
	for _, doc := range all.Jobs {
		job, err := decode[dispatch.Job](doc, nil)
		if err != nil {
			return err
		}
		if chosen(job) {
			docs = append(docs, doc)
			t.add(job.ID, kindOf(job), job.State, ago(e.now(), job.Created), job.Scanned, job.Chosen, job.Sent, job.Skipped, job.Note)
		}
	}
	switch {
	case e.json():
		return e.printJSON(map[string]any{"jobs": docs})
	case len(docs) == 0:
		e.note("no jobs")
		return nil
	}
	return t.print(e.stdout)
}

func newJobsShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show one job.",
		Long:    "Show one redrive or replay: what it was asked to do and how far it is.",
		Example: "  sluice jobs show 3f9c2a10be",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), jobPath(args[0]), nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			job, err := decode[dispatch.Job](doc, nil)
			if err != nil {
				return err
			}
			return e.showJob(job)
		},
	}
}

func (e *env) showJob(job dispatch.Job) error {
	var asked any = job.Redrive
	if isReplay(job) {
		asked = job.Replay
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	t := newTable()
	t.add("job", job.ID)
	t.add("kind", kindOf(job))
	t.add("asked", string(text))
	t.add("state", job.State)
	if job.Note != "" {
		t.add("note", job.Note)
	}
	t.add("started", ago(e.now(), job.Created))
	if !job.Ended.IsZero() {
		t.add("ended", ago(e.now(), job.Ended))
	}
	t.add("progress", tally(job))
	return t.print(e.stdout)
}

func newJobsFollowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "follow ID",
		Short: "Watch a job until it ends.",
		Long: `Watch a redrive or replay until it ends. Ctrl-C ends the watching, not the job.

Exit code 1 when the job failed, was cancelled or was stopped by its canary.`,
		Example: "  sluice jobs follow 3f9c2a10be",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), jobPath(args[0]), nil)
			if err != nil {
				return err
			}
			return e.follow(c.Context(), api, doc)
		},
	}
}

func newJobsCancelCommand(e *env, short, example string) *cobra.Command {
	return &cobra.Command{
		Use:     "cancel ID",
		Short:   short,
		Long:    short + " A job that has ended already stays as it is.",
		Example: example,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.post(c.Context(), jobPath(args[0])+"/cancel", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			job, err := decode[dispatch.Job](doc, nil)
			if err != nil {
				return err
			}
			if job.State == dispatch.JobRunning || job.State == dispatch.JobCancelled {
				e.printf("cancelled %s\n", job.ID)
			} else {
				e.printf("%s has ended already: %s\n", job.ID, job.State)
			}
			return nil
		},
	}
}

func jobPath(id string) string { return "api/v1/jobs/" + url.PathEscape(id) }

// startJob starts a redrive or a replay and watches it, unless it is to be left
// alone.
func (e *env) startJob(ctx context.Context, path string, body any, detach bool) error {
	api, err := e.client()
	if err != nil {
		return err
	}
	doc, err := api.post(ctx, path, body)
	if err != nil {
		return err
	}
	if !detach {
		return e.follow(ctx, api, doc)
	}
	if e.json() {
		return e.printJSON(doc)
	}
	job, err := decode[dispatch.Job](doc, nil)
	if err == nil {
		e.printf("%s\n", job.ID)
	}
	return err
}

// How often a job is looked at while it is followed.
const (
	firstLook = 100 * time.Millisecond
	laterLook = 2 * time.Second
)

// follow watches a job until it ends and prints how it did.
func (e *env) follow(ctx context.Context, api *client, doc json.RawMessage) error {
	job, err := decode[dispatch.Job](doc, nil)
	if err != nil {
		return err
	}
	bar := e.progress(int64(job.Total), kindOf(job), false)
	told := ""
	for wait := firstLook; job.State == dispatch.JobRunning; wait = min(2*wait, laterLook) {
		done, total := distance(job)
		bar.at(done, total, fmt.Sprintf("%s: sent %d", kindOf(job), job.Sent))
		if line := tally(job); !bar.shown() && line != told && job.Scanned > 0 {
			e.note("%s", line)
			told = line
		}
		err := e.sleep(ctx, wait)
		if err == nil {
			doc, err = api.get(ctx, jobPath(job.ID), nil)
		}
		if err == nil {
			job, err = decode[dispatch.Job](doc, nil)
		}
		if err != nil {
			bar.end()
			return e.lostJob(ctx, job, err)
		}
	}
	bar.end()
	if e.json() {
		err = e.printJSON(doc)
	} else {
		e.printf("%s\n", result(job))
	}
	if err == nil && job.State != dispatch.JobDone {
		err = exit(exitFailure)
	}
	return err
}

// lostJob says that only the watching has ended.
func (e *env) lostJob(ctx context.Context, job dispatch.Job, err error) error {
	if ctx.Err() != nil {
		err = errInterrupted
	}
	return fmt.Errorf("%w: job %s goes on, watch it with `sluice jobs follow %s` or stop it with `sluice jobs cancel %s`",
		err, job.ID, job.ID, job.ID)
}

// distance is how far a job is. A replay does not know how many events there are,
// but which pack is the last.
func distance(job dispatch.Job) (done, total int64) {
	if job.Total == 0 && isReplay(job) {
		return int64(job.Cursor), int64(job.Head)
	}
	return int64(job.Scanned), int64(job.Total)
}

func kindOf(job dispatch.Job) string {
	if job.Lost() > 0 {
		return "recovery"
	}
	if isReplay(job) {
		return "replay"
	}
	return "redrive"
}

// tally is how far a job is, in words.
func tally(job dispatch.Job) string {
	text := fmt.Sprintf("looked at %d", job.Scanned)
	if job.Total > 0 {
		text += fmt.Sprintf(" of %d", job.Total)
	}
	text += fmt.Sprintf(", chosen %d, sent %d", job.Chosen, job.Sent)
	if job.Skipped > 0 {
		text += fmt.Sprintf(", skipped %d without a sink to go to", job.Skipped)
	}
	return text
}

// result is how a job ended, in words.
func result(job dispatch.Job) string {
	text := kindOf(job) + " " + job.ID + " " + job.State + ": " + tally(job)
	if job.Redrive != nil && job.Redrive.DryRun || isReplay(job) && job.Replay.DryRun {
		text += " (dry run)"
	}
	if job.Note != "" {
		text += ": " + job.Note
	}
	return text
}
