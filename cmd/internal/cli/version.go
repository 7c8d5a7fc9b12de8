package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program.",
		Long:    "Print the version of this program, the commit it was built from, and the version of Go.",
		Example: "  sluice version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if e.json() {
				return e.printJSON(b)
			}
			e.printf("sluice %s", b.Version)
			if b.Revision != "" {
				e.printf(" (%s%s%s)", b.Revision[:min(12, len(b.Revision))], before(" ", b.Time), dirty(b.Modified))
			}
			e.printf(" %s %s\n", b.Go, b.Platform)
			return nil
		},
	}
}

// build is what the program knows of its own making.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the commit
	Modified bool   `json:"modified"`       // built with changes that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func before(space, s string) string {
	if s == "" {
		return ""
	}
	return space + s
}

func dirty(modified bool) string {
	if modified {
		return ", modified"
	}
	return ""
}
