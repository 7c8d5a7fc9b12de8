package cli

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/config"
)

func newValidateCommand(e *env) *cobra.Command {
	var paths []string
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate [--config] FILE|DIR ...",
		Short: "Check configs and print every fault with its place.",
		Long: `Check configs: every fault is printed as file:line:col: path: message, all of them at
once, and then the config's own tests are run. Nothing is started and no server is
needed.

Warnings are about what is valid and yet hardly meant: a rule that can never match, two
rules that are equal, a rule whose events another sends to the same sinks, a sink that
nothing reaches. With --server they are also about fields that none of the newest events
which that server keeps has.

Exit code 3 when a config has faults (with --strict also warnings), 1 when one of its
tests fails.`,
		Example: `  sluice validate --config sluice.yaml
  sluice validate --strict --server http://127.0.0.1:8484 sluice.yaml
  sluice validate -o json config/*.yaml`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			paths := append(paths, args...)
			if len(paths) == 0 {
				return usagef("no config named: write --config FILE or --config DIR")
			}
			lint := lintOptions{strict: strict}
			if c.Flags().Changed("server") {
				var err error
				if lint.sample, err = e.sample(c.Context()); err != nil {
					return err
				}
			}
			return e.validate(paths, lint)
		},
	}
	cmd.Flags().StringArrayVarP(&paths, "config", "c", nil, "config `file` or directory; may be given several times")
	cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for faults")
	return cmd
}

// lintOptions are how far validate goes.
type lintOptions struct {
	strict bool
	sample []bus.Event // events that show which fields there are; nil for none
}

// verdict is what validate says about one config.
type verdict struct {
	Config  string        `json:"config"`
	OK      bool          `json:"ok"`
	Version string        `json:"version,omitempty"`
	Sources int           `json:"sources"`
	Sinks   int           `json:"sinks"`
	Rules   int           `json:"rules"`
	Faults  config.Faults `json:"faults"`
	Tests   []outcome     `json:"tests"`
	Error   string        `json:"error,omitempty"` // it cannot be read at all
}

func (e *env) validate(paths []string, lint lintOptions) error {
	verdicts := make([]verdict, len(paths))
	code := exitOK
	for i, path := range paths {
		v := e.judge(path, lint)
		verdicts[i] = v
		switch {
		case v.OK:
		case len(v.Faults) > 0 && (v.Version == "" || lint.strict):
			code = exitInvalid // it outweighs failed tests
		case code == exitOK:
			code = exitFailure
		}
		if !e.json() {
			e.printVerdict(v)
		}
	}
	if e.json() {
		if err := e.printJSON(map[string]any{"configs": verdicts}); err != nil {
			return err
		}
	}
	if code != exitOK {
		return exit(code)
	}
	return nil
}

func (e *env) judge(path string, opts lintOptions) verdict {
	v := verdict{Config: path, Faults: config.Faults{}, Tests: []outcome{}}
	c, err := config.Load(path, e.kinds)
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		v.Faults = faults
		return v
	case err != nil:
		v.Error = err.Error()
		return v
	}
	v.Version = c.Version()
	v.Sources, v.Sinks, v.Rules = len(c.Sources), len(c.Sinks), len(c.Rules)
	v.Faults = append(append(v.Faults, c.Warnings...), lint(c, e.now())...)
	if len(opts.sample) > 0 {
		unseen, err := lintFields(c, opts.sample, e.server)
		if err != nil {
			v.Error = err.Error()
			return v
		}
		v.Faults = append(v.Faults, unseen...)
	}
	sortFaults(v.Faults)
	r, err := newRouting(c)
	if err != nil {
		v.Error = err.Error()
		return v
	}
	outcomes := r.runTests(c)
	v.Tests = append(v.Tests, outcomes...)
	v.OK = failures(outcomes) == 0 && (!opts.strict || len(v.Faults) == 0)
	return v
}

func (e *env) printVerdict(v verdict) {
	p := e.paint(e.stdout)
	excerpt := excerpts{show: e.terminal(e.stdout), files: map[string][]string{}}
	errs := 0
	for _, fault := range v.Faults {
		text, color := fault.String(), p.red
		if fault.Severity == config.SeverityWarning {
			color = p.yellow
		} else {
			errs++
		}
		e.printf("%s\n", color(text))
		e.printf("%s", p.dim(excerpt.of(fault)))
	}
	for _, o := range v.Tests {
		if !o.OK {
			e.printf("%s\n", p.red(o.Place+": tests: "+o.Name+": "+o.why()))
		}
	}
	failed := failures(v.Tests)
	switch {
	case v.Error != "":
		e.printf("%s %s: %s\n", p.red("failed:"), v.Config, v.Error)
	case errs > 0:
		e.printf("%s %s: %s\n", p.red("invalid:"), v.Config, plural(errs, "fault"))
	case !v.OK && failed == 0:
		e.printf("%s %s: %s, and --strict is given\n", p.red("invalid:"), v.Config, plural(len(v.Faults), "warning"))
	case failed > 0:
		e.printf("%s %s: %d of %s failed; `sluice test --config %s` tells why\n",
			p.red("failed:"), v.Config, failed, plural(len(v.Tests), "test"), v.Config)
	case !e.quiet:
		e.printf("%s %s, %s, %s, %s\n", p.green("ok:"), plural(v.Sources, "source"), plural(v.Sinks, "sink"),
			plural(v.Rules, "rule"), plural(len(v.Tests), "test"))
	}
}

// why says in one line what a test found.
func (o outcome) why() string {
	if o.Error != "" {
		return o.Error
	}
	return "expected " + join(o.Expect, "no sink") + "; got " + join(o.Got, "no sink")
}

// excerpts are the lines that faults are in, for somebody who reads along.
type excerpts struct {
	show  bool
	files map[string][]string
}

// of is the line of a fault with a caret below its place, or "".
func (x excerpts) of(f config.Fault) string {
	if !x.show || f.Line == 0 {
		return ""
	}
	lines, read := x.files[f.File]
	if !read {
		src, err := os.ReadFile(f.File)
		if err == nil {
			lines = strings.Split(string(src), "\n")
		}
		x.files[f.File] = lines
	}
	if f.Line > len(lines) {
		return ""
	}
	line := strings.TrimRight(lines[f.Line-1], "\r")
	before := []rune(line)
	before = before[:min(max(f.Col-1, 0), len(before))]
	for i, r := range before {
		if r != '\t' { // a tab below a tab keeps the caret in its column
			before[i] = ' '
		}
	}
	number := strconv.Itoa(f.Line)
	return "  " + number + " | " + line + "\n  " + strings.Repeat(" ", len(number)) + " | " + string(before) + "^\n"
}
