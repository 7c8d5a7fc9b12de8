package bench_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/cmd/internal/bench"
	"sluice/cmd/internal/cli"
)

// asProgram makes the test binary behave as the program, for the servers that a
// run starts.
const asProgram = "SLUICE_BENCH_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// tiny is a run that only shows that everything works.
func tiny(t *testing.T) bench.Options {
	t.Helper()
	s := bench.DefaultSettings()
	s.Rounds, s.Duration, s.Warmup = 1, 60*time.Millisecond, 10*time.Millisecond
	s.Connections, s.Outstanding, s.Sinks, s.Events, s.Hang = 4, 32, 20, 300, 50*time.Millisecond
	s.Baseline = true
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s.Brokers = cluster.ListenAddrs()
	return bench.Options{Settings: s, Dir: t.TempDir(), Program: bench.Program{Path: os.Args[0], Env: append(os.Environ(), asProgram+"=1")}}
}

// TestScenarios runs each scenario once. Nothing is lost, nothing is left behind,
// and what a scenario is about was measured.
func TestScenarios(t *testing.T) {
	t.Parallel()
	measured := map[string][]string{
		"fanout":    {"1→1 sluice", "1→1 proxy", "1→10 sluice", "1→10 proxy", "1→10 of 20 sluice"},
		"ingest":    {"4 connections sluice", "4 connections no store", "512 connections sluice", "512 connections no store", "batches of 100 sluice"},
		"latency":   {"200 events/s sluice", "200 events/s proxy"},
		"isolation": {"beside a healthy sink sluice", "beside one that hangs 50ms sluice"},
		"kill9":     {"until the kill sluice", "all rounds sluice"},
		"queue":     {"queue, 8 consumers sluice", "queue, 8 consumers raw log"},
		"kafka":     {"kafka, 6 partitions sluice", "kafka, 6 partitions kafka-go reader"},
		"backlog":   {"direct sluice", "pile up sluice", "drain sluice", "restart sluice"},
	}
	for _, s := range bench.Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			o := tiny(t)
			steps, total := 0, 0
			o.Progress = func(_, of int, _ string) { steps, total = steps+1, of }
			report, err := bench.Run(t.Context(), s, o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range report.Measures {
				got = append(got, m.Load+" "+m.System)
				if m.Lost != 0 || m.Fault != "" {
					t.Errorf("%s %s: %d lost, %q", m.Load, m.System, m.Lost, m.Fault)
				}
				if m.Events == 0 && m.Deliveries == 0 && m.Accepted == 0 && m.ReadySeconds == 0 {
					t.Errorf("%s %s: nothing happened", m.Load, m.System)
				}
			}
			if !slices.Equal(got, measured[s.Name]) {
				t.Errorf("measured %q, want %q", got, measured[s.Name])
			}
			if steps != total {
				t.Errorf("the progress told %d steps of %d", steps, total)
			}
			empty(t, o.Dir)
		})
	}
}

// TestRunEndsWithItsContext interrupts a run under way.
func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o := tiny(t)
	o.Duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(int, int, string) { time.AfterFunc(200*time.Millisecond, cancel) }
	if _, err := bench.Run(ctx, bench.Scenarios()[0], o); !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	empty(t, o.Dir)
}

// TestServerThatDoesNotStart keeps what it said.
func TestServerThatDoesNotStart(t *testing.T) {
	t.Parallel()
	o := tiny(t)
	o.Profile = "/nowhere/at/all"
	if _, err := bench.Run(t.Context(), bench.Scenarios()[0], o); err == nil || !strings.Contains(err.Error(), o.Profile) {
		t.Errorf("the run ended with %v", err)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("the run left %v behind", left)
	}
}
