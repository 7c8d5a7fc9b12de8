package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Settings are the choices of a run.
type Settings struct {
	Rounds      int           `json:"rounds"`
	Duration    time.Duration `json:"duration_ns"`       // of each measurement
	Warmup      time.Duration `json:"warmup_ns"`         // before each measurement
	Connections int           `json:"connections"`       // that publish
	Outstanding int           `json:"outstanding"`       // events on their way at a time, in fanout; 0 for any number
	Size        int           `json:"size"`              // bytes of an event's data
	Sinks       int           `json:"sinks"`             // that are configured, in the largest part of fanout
	Rate        float64       `json:"rate"`              // events/s, in latency; isolation has twice as many
	Events      int           `json:"events"`            // in backlog
	Hang        time.Duration `json:"hang_ns"`           // of the sink in isolation
	Baseline    bool          `json:"baseline"`          // compare with the bare proxy
	Consumers   int           `json:"consumers"`         // in queue
	Brokers     []string      `json:"brokers,omitempty"` // of a Kafka cluster, in kafka
}

// DefaultSettings are what the numbers of the README were taken with.
func DefaultSettings() Settings {
	return Settings{
		Rounds: 5, Duration: 3 * time.Second, Warmup: time.Second, Connections: 64, Outstanding: 512, Size: 1 << 10,
		Sinks: 1000, Rate: 200, Events: 100_000, Hang: 5 * time.Second, Consumers: 8,
	}
}

// Options are what a run needs besides its settings.
type Options struct {
	Settings
	Program Program
	Dir     string // where temporary data goes; "" for the system's place
	Profile string // a directory for CPU profiles of the servers, one for each load; "" for none
	// Progress hears how far the run is; nil for nobody.
	Progress func(done, total int, what string)
}

// Scenario is one thing to measure.
type Scenario struct {
	Name string
	Doc  string
	run  func(*runner, context.Context) error
	// steps is how many measurements it takes.
	steps func(*Settings) int
}

// Scenarios are all there are, in the order of a run of all of them.
func Scenarios() []Scenario {
	return []Scenario{
		{"fanout", "closed loop: one event to one sink, to ten, and to ten among many that are configured", (*runner).fanout, fanoutSteps},
		{"ingest", "durable ingest alone, beside the same server without a store, and in batches", (*runner).ingest, ingestSteps},
		{"latency", "open loop at a steady rate: from sending to the 202 and to the sink", (*runner).latency, latencySteps},
		{"isolation", "a sink that hangs beside one that does not", (*runner).isolation, isolationSteps},
		{"kill9", "the bus is killed under load again and again", (*runner).kill9, kill9Steps},
		{"queue", "a queue over HTTP: publish, receive, acknowledge; beside the log alone", (*runner).queue, queueSteps},
		{"kafka", "a topic of Apache Kafka, beside a bare reader; needs --brokers", (*runner).kafka, kafkaSteps},
		{"backlog", "deliveries pile up for a dead sink, then drain; a restart with all of them retained", (*runner).backlog, backlogSteps},
	}
}

// Run measures one scenario. It leaves nothing behind. When ctx ends, so does the
// run, with an error.
func Run(ctx context.Context, s Scenario, o Options) (*Report, error) {
	dir, err := os.MkdirTemp(o.Dir, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is only temporary
	r := &runner{Options: o, dir: dir, steps: s.steps(&o.Settings), report: &Report{
		Scenario: s.Name, Started: time.Now(), Settings: o.Settings,
		Host: Host{runtime.NumCPU(), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()},
	}}
	if inMemory(dir) {
		r.note("the data was in memory (%s), where fsync costs nothing: choose a directory on a disk", dir)
	}
	if err := s.run(r, ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return r.report, err
	}
	return r.report, nil
}

// runner is one run of a scenario.
type runner struct {
	Options
	dir         string
	report      *Report
	step, steps int
	stores      int // directories that were used
}

func (r *runner) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// next tells the progress, and whether the run is to go on.
func (r *runner) next(ctx context.Context, format string, args ...any) error {
	if r.Progress != nil {
		r.Progress(r.step, r.steps, fmt.Sprintf(format, args...))
	}
	r.step++
	return ctx.Err()
}

// busProcess is a bus with its store and config.
type busProcess struct {
	r    *runner
	args []string
	dir  string
	*process
}

// busOf is the config of a bus. Its sinks are those of a farm, and as many idle
// ones as are missing to the number of configured ones.
type busOf struct {
	load    string // the name of a profile
	farm    *farm
	sinks   int    // configured in all; 0 for those of the farm
	options string // of each sink, in YAML, after a comma
	nowhere bool   // no rule matches
	sources string // their section in YAML, if there are any
	kind    string // of the sinks, with its settings, in YAML; "" for http
}

func (b busOf) yaml(dir string) string {
	var text, to strings.Builder
	fmt.Fprintf(&text, "server: {listen: \"127.0.0.1:0\", drain_timeout: 2s}\nstore: {dir: %q, sync: always}\n", filepath.Join(dir, "data"))
	addresses := b.farm.addresses()
	text.WriteString(b.sources)
	text.WriteString("sinks:\n")
	for i := range max(b.sinks, len(addresses)) {
		name, address := fmt.Sprintf("s%d", i), addresses[i%len(addresses)]
		kind := b.kind
		if kind == "" {
			kind = fmt.Sprintf("http: {url: \"http://%s/%s\"}", address, name)
		}
		fmt.Fprintf(&text, "  %s: {%s%s}\n", name, kind, b.options)
		if i < len(addresses) {
			to.WriteString(name + ", ")
		}
	}
	text.WriteString("rules:\n")
	fmt.Fprintf(&text, "  all: {match: {type: [%s]}, to: [%s]}\n", map[bool]string{false: "bench.made", true: "bench.other"}[b.nowhere], to.String())
	// Every idle sink has a rule of its own: a sink without one is not realistic.
	for i := len(addresses); i < b.sinks; i++ {
		fmt.Fprintf(&text, "  r%d: {match: {type: [bench.other-%d]}, to: [s%d]}\n", i, i, i)
	}
	return text.String()
}

// startBus starts a bus on a store of its own.
func (r *runner) startBus(ctx context.Context, of busOf) (*busProcess, error) {
	r.stores++
	dir := filepath.Join(r.dir, fmt.Sprint("store-", r.stores))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(config, []byte(of.yaml(dir)), 0o600); err != nil {
		return nil, err
	}
	b := &busProcess{r: r, dir: dir, args: []string{"serve", "--config", config, "--log-format", "json", "--log-level", "info"}}
	b.args = append(b.args, r.profile(of.load)...)
	return b, b.start(ctx)
}

// start starts the bus, or starts it again.
func (b *busProcess) start(ctx context.Context) (err error) {
	b.process, err = b.r.Program.start(ctx, "sluice", b.args...)
	return err
}

// stop ends the bus and removes its store.
func (b *busProcess) stop() {
	if b.process != nil {
		b.process.stop()
	}
	_ = os.RemoveAll(b.dir) // what is left goes with the run's directory
}

// The names of the systems.
const (
	sluiceName = "sluice"
	proxyName  = "proxy"
	doorName   = "no store"
)

// startProxy starts the bare proxy.
func (r *runner) startProxy(ctx context.Context, load string, f *farm) (*process, error) {
	args := append([]string{"bench", "proxy", "--to", strings.Join(f.addresses(), ",")}, r.profile(load+" "+proxyName)...)
	return r.Program.start(ctx, proxyName, args...)
}

// startDoor starts the bus without a store.
func (r *runner) startDoor(ctx context.Context, load string) (*process, error) {
	return r.Program.start(ctx, doorName, append([]string{"bench", "door"}, r.profile(load+" "+doorName)...)...)
}

// profile are the arguments that make a server write a CPU profile, if wanted.
func (r *runner) profile(load string) []string {
	if r.Profile == "" {
		return nil
	}
	name := strings.NewReplacer("→", "to", " ", "-", "/", "-").Replace(r.report.Scenario + " " + load)
	return []string{"--cpuprofile", filepath.Join(r.Profile, name+".pprof")}
}
