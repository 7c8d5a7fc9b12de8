package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/bus"
	"sluice/rules"
)

// Job is a redrive or a replay: work that takes a while, can be watched and
// cancelled, and goes on after a restart. Exactly one of Redrive and Replay is set.
type Job struct {
	ID      string    `json:"id"`
	Redrive *Redrive  `json:"redrive,omitempty"`
	Replay  *Replay   `json:"replay,omitempty"`
	State   string    `json:"state"` // one of the Job constants
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero"`

	Scanned int `json:"scanned"` // events or dead letters looked at
	Total   int `json:"total"`   // to look at; 0 while unknown
	Chosen  int `json:"chosen"`  // of those, the ones that the filter chose
	Sent    int `json:"sent"`    // deliveries made durable
	Skipped int `json:"skipped"` // chosen, and with no sink to go to
	// Of a replay of lost deliveries: events are missing that may be theirs, and of
	// how many, about, in the end.
	Missing bool `json:"missing,omitempty"`
	Gone    int  `json:"gone,omitempty"`

	Cursor uint64 `json:"cursor,omitempty"` // the pack to go on from
	Head   uint64 `json:"head,omitempty"`   // the last pack when the job was made

	wait time.Duration // before it begins
}

// The states of a job.
const (
	JobRunning   = "running"
	JobDone      = "done"
	JobCancelled = "cancelled"
	JobStopped   = "stopped" // by its canary
	JobFailed    = "failed"
)

// jobs runs the jobs, one goroutine each.
type jobs struct {
	d       *Dispatcher
	running sync.WaitGroup

	mu     sync.Mutex
	all    map[string]*Job
	cancel map[string]context.CancelFunc
}

// keepJobs is how many ended jobs are remembered.
const keepJobs = 100

func newJobs(d *Dispatcher) *jobs {
	return &jobs{d: d, all: map[string]*Job{}, cancel: map[string]context.CancelFunc{}}
}

func newJobID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// newJob is a job that begins.
func newJob(job Job) Job {
	job.ID, job.State, job.Created = newJobID(), JobRunning, time.Now()
	return job
}

// begin stores a job and starts it.
func (j *jobs) begin(ctx context.Context, job Job) (Job, error) {
	if !j.d.calls.enter() {
		return Job{}, bus.ErrClosed
	}
	defer j.d.calls.leave()
	job = newJob(job)
	if err := j.save(ctx, job); err != nil {
		return Job{}, err
	}
	j.start(job)
	j.forgetOld(ctx)
	return job, nil
}

func (j *jobs) start(job Job) *Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	if before := j.all[job.ID]; before != nil {
		return before // found in the store just after it was begun
	}
	ctx, cancel := context.WithCancel(j.d.intake)
	j.all[job.ID] = &job
	j.cancel[job.ID] = cancel
	j.running.Go(func() {
		defer cancel()
		j.run(ctx, &job)
	})
	return &job
}

// run does a job and notes how it ended. A job that the shutdown ends stays
// running in the store: the next start goes on with it.
func (j *jobs) run(ctx context.Context, job *Job) {
	var err error
	if job.Redrive != nil {
		err = j.redrive(ctx, job)
	} else {
		err = j.replay(ctx, job)
	}
	if j.d.intake.Err() != nil {
		_ = j.progress(context.Background(), job)
		return
	}
	j.mu.Lock()
	delete(j.cancel, job.ID)
	job.Ended = time.Now()
	switch {
	case errors.Is(err, errCanary):
		job.State, job.Note = JobStopped, err.Error()
	case ctx.Err() != nil:
		job.State = JobCancelled
	case err != nil:
		job.State, job.Note = JobFailed, err.Error()
	default:
		job.State = JobDone
	}
	j.mu.Unlock()
	if err := j.progress(j.d.intake, job); err != nil {
		j.d.log.Warn("cannot save how a job ended", "job", job.ID, "err", err)
	}
	j.d.log.Info("job ended", "job", job.ID, "state", job.State, "chosen", job.Chosen, "sent", job.Sent, "note", job.Note)
}

// progress saves how far a job is. What it has sent is in the saved lists of what
// waits by then (contents.go): or a damaged store could lose that and nobody would know.
func (j *jobs) progress(ctx context.Context, job *Job) error {
	reached := j.copy(job)
	if err := j.d.commit(ctx); err != nil {
		return err
	}
	return j.save(ctx, reached)
}

func (j *jobs) save(ctx context.Context, job Job) error {
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return j.d.store.PutState(ctx, jobPrefix+job.ID, text)
}

// update changes a job under the lock that readers take.
func (j *jobs) update(job *Job, change func(*Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(job)
}

func (j *jobs) copy(job *Job) Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return *job
}

func (j *jobs) wait() { j.running.Wait() }

// recover goes on with the jobs of an earlier process.
func (j *jobs) recover(ctx context.Context) error {
	keys, err := j.d.store.StateKeys(ctx, jobPrefix)
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, err := j.d.store.State(ctx, key)
		if errors.Is(err, bus.ErrDamaged) {
			j.d.log.Error("what is kept of a job cannot be read any more: it does not go on", "job", strings.TrimPrefix(key, jobPrefix))
			continue
		}
		if err != nil {
			return err
		}
		var job Job
		if err := json.Unmarshal(text, &job); err != nil {
			return fmt.Errorf("state %s: %w", key, err)
		}
		if job.State == JobRunning {
			j.start(job)
			continue
		}
		j.mu.Lock()
		j.all[job.ID] = &job
		j.mu.Unlock()
	}
	return nil
}

// forgetOld drops the oldest ended jobs.
func (j *jobs) forgetOld(ctx context.Context) {
	list := j.list()
	for _, job := range list[min(keepJobs, len(list)):] {
		if job.State == JobRunning {
			continue
		}
		j.mu.Lock()
		delete(j.all, job.ID)
		j.mu.Unlock()
		if err := j.d.store.PutState(ctx, jobPrefix+job.ID, nil); err != nil {
			j.d.log.Warn("cannot remove an old job", "job", job.ID, "err", err)
		}
	}
}

// list gives the jobs, newest first.
func (j *jobs) list() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]Job, 0, len(j.all))
	for _, job := range j.all {
		list = append(list, *job)
	}
	slices.SortFunc(list, func(a, b Job) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Jobs lists the redrives and replays, newest first.
func (d *Dispatcher) Jobs() []Job { return d.jobs.list() }

// Job is one job, or bus.ErrNotFound.
func (d *Dispatcher) Job(id string) (Job, error) {
	d.jobs.mu.Lock()
	defer d.jobs.mu.Unlock()
	if job := d.jobs.all[id]; job != nil {
		return *job, nil
	}
	return Job{}, fmt.Errorf("job %q: %w", id, bus.ErrNotFound)
}

// CancelJob stops a running job. What it has sent stays sent.
func (d *Dispatcher) CancelJob(id string) error {
	d.jobs.mu.Lock()
	defer d.jobs.mu.Unlock()
	if d.jobs.all[id] == nil {
		return fmt.Errorf("job %q: %w", id, bus.ErrNotFound)
	}
	if cancel := d.jobs.cancel[id]; cancel != nil {
		cancel()
	}
	return nil
}

// sender makes the deliveries of a job durable: a batch at a time, no faster
// than the job's rate, and not while its sinks are far behind.
type sender struct {
	limiter *rate.Limiter
	batch   int
	ahead   int // the backlog of a sink that makes the job wait
}

const (
	jobBatch = 256
	// jobAhead is the backlog of a sink that makes a job wait: it would only move
	// the log into the backlog. What was lost from there does not wait.
	jobAhead = 10_000
)

func newSender(perSecond float64) *sender {
	if perSecond <= 0 {
		return &sender{batch: jobBatch, ahead: jobAhead}
	}
	batch := max(1, min(jobBatch, int(perSecond/10)))
	return &sender{limiter: rate.NewLimiter(rate.Limit(perSecond), batch), batch: batch, ahead: jobAhead}
}

// outgoing is one delivery of a job.
type outgoing struct {
	lane *lane
	d    *delivery
}

// send makes deliveries durable in the backlogs of their sinks. It returns the
// first error; then some may be durable and some not.
func (s *sender) send(ctx context.Context, all []outgoing, from string) error {
	for len(all) > 0 {
		part := all[:min(s.batch, len(all))]
		all = all[len(part):]
		if s.limiter != nil {
			if err := s.limiter.WaitN(ctx, len(part)); err != nil {
				return err
			}
		}
		for _, o := range part {
			for o.lane.backlogDepth() > s.ahead {
				if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
		if err := store(ctx, part, from); err != nil {
			return err
		}
	}
	return nil
}

// store makes deliveries durable. What a full store refuses is tried again.
func store(ctx context.Context, all []outgoing, from string) error {
	for {
		results := make([]error, len(all))
		var written sync.WaitGroup
		for i, o := range all {
			written.Add(1)
			o.lane.inject(o.d, from, func(err error) {
				results[i] = err
				written.Done()
			})
		}
		written.Wait()
		var refused []outgoing
		for i, err := range results {
			switch {
			case errors.Is(err, bus.ErrFull):
				refused = append(refused, all[i])
			case err != nil:
				return err
			}
		}
		if len(refused) == 0 {
			return nil
		}
		all = refused
		if pause(ctx, time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// compilePattern makes a set of one pattern; an empty text gives nil, which
// matches everything.
func compilePattern(text json.RawMessage) (*rules.Set, error) {
	if len(text) == 0 {
		return nil, nil
	}
	p, err := rules.ParsePattern(text)
	if err != nil {
		return nil, err
	}
	return rules.Compile([]rules.Rule{{Pattern: p}})
}

// PatternFilter compiles pattern text for a filter; empty text gives nil, which
// matches everything.
func PatternFilter(text []byte) (*rules.Set, error) { return compilePattern(text) }
