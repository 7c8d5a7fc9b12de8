package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/cmd/internal/app"
	"sluice/sinks"
	"sluice/sources"

	"sluice/config"
)

// TestMain lets the scripts run this test binary as sluice.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": func() {
		os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

// TestScripts runs testdata/script: what a user types, and what comes of it.
//
// Besides the commands of testscript there are:
//
//	code N sluice ARGS...  runs sluice, which has to exit with N
//	function NAME          starts a function; $NAME is its URL
//	answer NAME STATUS     makes it answer with a status from now on; 200 at first
//	server CONFIG          runs a bus in this process; $SLUICE_SERVER is its URL
//	await REGEXP ARGS...   runs a command until it succeeds and prints something like that
//	settled                waits until no delivery is open
//	stop                   ends the bus
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Values[stageKey{}] = &stage{functions: map[string]*function{}}
			// With -race every process would wait a second at its end for late reports.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			// Nothing of who runs the tests.
			e.Setenv("SLUICE_SERVER", "http://127.0.0.1:1")
			e.Setenv("SLUICE_TOKEN", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": awaitOutput, "code": runCode, "function": startFunction, "answer": setAnswer,
			"server": startServer, "settled": awaitSettled, "stop": stopServer,
		},
	})
}

type stageKey struct{}

// stage is what runs around one script.
type stage struct {
	functions map[string]*function
	app       *app.App
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// awaitOutput runs a command again and again until its output matches.
func awaitOutput(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: await REGEXP command args...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for range 200 {
		if err := ts.Exec(args[1], args[2:]...); err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	ts.Fatalf("never printed %s", want)
}

func runCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit interface{ ExitCode() int }
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// function is a sink's far side.
type function struct{ status atomic.Int64 }

func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	status := int(f.status.Load())
	w.WriteHeader(status)
	if status >= 300 {
		_, _ = io.WriteString(w, "function says no\n")
	}
}

func startFunction(ts *testscript.TestScript, _ bool, args []string) {
	f := &function{}
	f.status.Store(http.StatusOK)
	server := httptest.NewServer(f)
	ts.Defer(server.Close)
	stageOf(ts).functions[args[0]] = f
	ts.Setenv(args[0], server.URL)
}

func setAnswer(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	stageOf(ts).functions[args[0]].status.Store(int64(status))
}

func startServer(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	a, err := app.New(app.Options{
		Path: ts.MkAbs(args[0]), Listen: "127.0.0.1:0", Memory: true, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler),
		Kinds: config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds(), Env: func(name string) (string, bool) {
			v := ts.Getenv(name)
			return v, v != ""
		}},
	})
	ts.Check(err)
	ts.Check(a.Start(context.Background()))
	s.app = a
	ts.Defer(func() { _ = a.Stop(context.Background()) })
	ts.Setenv("SLUICE_SERVER", a.URL())
}

func stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(stageOf(ts).app.Stop(context.Background()))
}

// awaitSettled looks again and again: a balance has no signal.
func awaitSettled(ts *testscript.TestScript, _ bool, _ []string) {
	bus := stageOf(ts).app.Bus()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for {
		if b := bus.Balance(); bus.Unsettled() == 0 && b.Open() == 0 && b.Lost() == 0 {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			ts.Fatalf("deliveries are still open: %+v", bus.Balance())
		}
	}
}
