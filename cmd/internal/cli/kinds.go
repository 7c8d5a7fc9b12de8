package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config"
)

func newKindsCommand(e *env) *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "kinds [NAME]",
		Short: "List the kinds of sources and sinks, with their settings.",
		Long: `List the kinds of sources and sinks. With a name, print the settings of that kind: type,
default and meaning; for a sink also the options of its delivery, which stand beside
the kind. --schema prints the JSON Schema of the whole config, for editors.`,
		Example: `  sluice kinds
  sluice kinds http
  sluice kinds --schema > sluice.schema.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case schema && len(args) > 0:
				return usagef("--schema is about the whole config: leave %q out", args[0])
			case schema:
				_, err := e.stdout.Write(config.Schema(e.kinds))
				return err
			case len(args) == 0:
				return e.listKinds()
			}
			return e.showKind(args[0])
		},
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of a config")
	return cmd
}

func (e *env) listKinds() error {
	kinds := config.Kinds(e.kinds)
	if e.json() {
		return e.printJSON(map[string]any{"kinds": kinds, "sink_options": config.SinkOptions()})
	}
	t := newTable("ROLE", "KIND", "WHAT IT DOES")
	for _, k := range kinds {
		t.add(k.Role, k.Name, k.Doc)
	}
	return t.print(e.stdout)
}

func (e *env) showKind(name string) error {
	all := config.Kinds(e.kinds)
	var known []string
	for _, k := range all {
		if !slices.Contains(known, k.Name) {
			known = append(known, k.Name)
		}
	}
	if !slices.Contains(known, name) {
		return usagef("there is no kind %q: the kinds are %s", name, strings.Join(known, ", "))
	}
	chosen := slices.DeleteFunc(all, func(k config.KindDoc) bool { return k.Name != name })
	sink := slices.IndexFunc(chosen, func(k config.KindDoc) bool { return k.Role == "sink" })
	if e.json() {
		doc := map[string]any{"kinds": chosen}
		if sink >= 0 {
			doc["sink_options"] = chosen[sink].Options()
		}
		return e.printJSON(doc)
	}
	for i, k := range chosen {
		if i > 0 {
			e.printf("\n")
		}
		if err := e.printKeys(k.Role+" "+k.Name+": "+k.Doc, k.Keys); err != nil {
			return err
		}
	}
	if sink < 0 {
		return nil
	}
	e.printf("\n")
	title := "every sink, beside its kind:"
	if len(chosen[sink].Ignores) > 0 {
		title = "a " + name + " sink, beside its kind:"
	}
	return e.printKeys(title, chosen[sink].Options())
}

func (e *env) printKeys(title string, keys []config.KeyDoc) error {
	e.printf("%s\n", e.paint(e.stdout).bold(title))
	t := newTable()
	t.indent = "  "
	for _, k := range keys {
		doc := k.Doc
		if len(k.Enum) > 0 {
			doc += " One of " + strings.Join(k.Enum, ", ") + "."
		}
		t.add(k.Key, k.Type, k.Default, doc)
	}
	return t.print(e.stdout)
}
