package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"sync"
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
		ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt)
		os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

// TestScripts runs testdata/script: what a user types, and what comes of it.
//
// Besides the commands of testscript there are:
//
//	code N sluice ARGS...  runs sluice, which has to exit with N
//	function NAME          starts a function; $NAME is its URL
//	answer NAME STATUS...  makes it answer with a status each, and with the last one from
//	                       then on; 200 at first. 0 hangs up without an answer
//	authorized NAME TEXT   fails unless its last request had that Authorization
//	reply NAME TYPE        makes it reply with an event of a type where it answers 200
//	server CONFIG [DIR]    runs a bus in this process, in memory or on a directory;
//	                       $SLUICE_SERVER is its URL
//	await REGEXP ARGS...   runs a command until it succeeds and prints something like that
//	settled                waits until no delivery is open
//	unsubscribed           waits until there is no subscription
//	halt                   ends the bus; stop would end the script
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
			"await": awaitOutput, "code": runCode, "function": startFunction, "answer": setAnswer, "reply": setReply, "authorized": checkAuthorization,
			"server": startServer, "settled": awaitSettled, "unsubscribed": awaitUnsubscribed, "halt": stopServer,
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
type function struct {
	mu       sync.Mutex
	statuses []int  // the answers to come; the last one stays
	reply    string // the type of the event to answer with
	proof    string // the Authorization of the last request
}

func (f *function) next(proof string) (status int, reply string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proof = proof
	status = f.statuses[0]
	if len(f.statuses) > 1 {
		f.statuses = f.statuses[1:]
	}
	return status, f.reply
}

func (f *function) answer(statuses ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses = statuses
}

func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	status, reply := f.next(r.Header.Get("Authorization"))
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	if status == http.StatusOK && reply != "" {
		w.Header().Set("Ce-Type", reply)
	}
	w.WriteHeader(status)
	if status >= 300 {
		_, _ = io.WriteString(w, "function says no\n")
	}
}

func startFunction(ts *testscript.TestScript, _ bool, args []string) {
	f := &function{statuses: []int{http.StatusOK}}
	server := httptest.NewServer(f)
	ts.Defer(server.Close)
	stageOf(ts).functions[args[0]] = f
	ts.Setenv(args[0], server.URL)
}

func setAnswer(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: answer NAME STATUS...")
	}
	var statuses []int
	for _, text := range args[1:] {
		status, err := strconv.Atoi(text)
		ts.Check(err)
		statuses = append(statuses, status)
	}
	stageOf(ts).functions[args[0]].answer(statuses...)
}

func setReply(ts *testscript.TestScript, _ bool, args []string) {
	f := stageOf(ts).functions[args[0]]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply = args[1]
}

func checkAuthorization(ts *testscript.TestScript, _ bool, args []string) {
	f := stageOf(ts).functions[args[0]]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.proof != args[1] {
		ts.Fatalf("the last request had the Authorization %q", f.proof)
	}
}

func startServer(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	dir := ""
	if len(args) > 1 {
		dir = ts.MkAbs(args[1])
	}
	a, err := app.New(app.Options{
		Path: ts.MkAbs(args[0]), Listen: "127.0.0.1:0", Memory: dir == "", Dir: dir, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler),
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
	await(func() bool { b := bus.Balance(); return bus.Unsettled() == 0 && b.Open() == 0 && b.Lost() == 0 }, func() {
		ts.Fatalf("deliveries are still open: %+v", bus.Balance())
	})
}

func awaitUnsubscribed(ts *testscript.TestScript, _ bool, _ []string) {
	app := stageOf(ts).app
	await(func() bool { return len(app.Subscriptions()) == 0 }, func() {
		ts.Fatalf("there are still subscriptions: %+v", app.Subscriptions())
	})
}

func await(holds func() bool, late func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-ctx.Done():
			late()
		}
	}
}
