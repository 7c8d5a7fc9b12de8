package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// rig is an env whose surroundings a test decides on.
type rig struct {
	*env
	out, err *output
	vars     map[string]string
	slept    []time.Duration
}

// noon is when all of these tests happen.
func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func newRig(server string) *rig {
	r := &rig{out: &output{}, err: &output{}, vars: map[string]string{"SLUICE_SERVER": server}}
	r.env = &env{
		stdin: strings.NewReader(""), stdout: r.out, stderr: r.err,
		lookupEnv: func(name string) (string, bool) { v, ok := r.vars[name]; return v, ok },
		now:       noon,
		sleep:     func(ctx context.Context, d time.Duration) error { r.slept = append(r.slept, d); return ctx.Err() },
		terminal:  func(any) bool { return false },
		kinds:     config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()},
	}
	return r
}

func (r *rig) run(t *testing.T, want int, args ...string) {
	t.Helper()
	if got := run(t.Context(), args, r.env); got != want {
		t.Fatalf("%q exits with %d, want %d\nstdout: %s\nstderr: %s", args, got, want, r.out, r.err)
	}
}

// output is a buffer that several goroutines may use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	wake chan struct{} // told of every write; may be nil
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wake != nil {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func contains(t *testing.T, text fmtStringer, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text.String(), part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

type fmtStringer interface{ String() string }

// serve runs a server for one test.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func answer(w http.ResponseWriter, status int, doc any) {
	mediaType := "application/json"
	if status >= 400 {
		mediaType = "application/problem+json"
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}

func everyCommand(t *testing.T, visit func(t *testing.T, c *cobra.Command)) {
	t.Helper()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.Hidden {
			t.Run(c.CommandPath(), func(t *testing.T) { visit(t, c) })
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(newRig("").env))
}

func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		switch {
		case c.Short == "" || !strings.HasSuffix(c.Short, "."):
			t.Errorf("Short %q is no sentence", c.Short)
		case c.Long == "":
			t.Error("no Long")
		case !strings.Contains(c.Example, "sluice"):
			t.Error("no Example")
		case c.Args == nil && c.RunE != nil && !c.HasSubCommands() && !strings.Contains(c.Use, "["):
			t.Error("takes arguments that Use does not name")
		}
		for _, line := range strings.Split(c.Long, "\n") {
			if len([]rune(line)) > 100 {
				t.Errorf("a line of Long is too wide: %s", line)
			}
		}
	})
}

// TestExamplesParse holds the examples to the commands and flags there are.
func TestExamplesParse(t *testing.T) {
	t.Parallel()
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("example %q is not indented", line)
			}
			for _, args := range invocations(line) {
				root := newRoot(newRig("").env)
				cmd, rest, err := root.Find(args)
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err == nil {
					err = cmd.ValidateArgs(cmd.Flags().Args())
				}
				if err != nil {
					t.Errorf("example %q: %v", line, err)
				}
			}
		}
	})
}

// invocations are the arguments of every sluice in a line of shell.
func invocations(line string) (all [][]string) {
	for _, part := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("|<>()$", r) }) {
		words := shellWords(part)
		if len(words) > 0 && words[0] == "sluice" {
			all = append(all, words[1:])
		}
	}
	return all
}

func shellWords(line string) (words []string) {
	var word strings.Builder
	quoted := rune(0)
	in := false
	for _, r := range line {
		switch {
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quoted, in = r, true
		case r == ' ':
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}
