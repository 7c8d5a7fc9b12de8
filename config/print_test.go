package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"sluice/config"
)

func TestAConfigPrintsNoSecret(t *testing.T) {
	t.Parallel()
	c := parse(t, whole)
	var shown strings.Builder
	for _, v := range []any{c, *c, c.Server, c.Server.Auth, c.Sinks, c.Sinks[0].Settings, *c.Sinks[0].Settings.(*httpSink)} {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %d %x %X") {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
		asJSON, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		asYAML, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(append(asJSON, asYAML...))
		slog.New(slog.NewTextHandler(&shown, nil)).Info("m", "config", v)
		slog.New(slog.NewJSONHandler(&shown, nil)).Info("m", "config", v)
	}
	if s := shown.String(); strings.Contains(s, marker) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", marker)) {
		t.Error("a secret was printed")
	} else if !strings.Contains(s, `"Token":"***"`) {
		t.Errorf("the secret is not even there: %s", s)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	const src = "sinks: {a: {http: {url: 'http://a/'}, timeout: 3s}, b: {stdout: {}}}\nrules: {r: {match: {type: [x, y]}, to: [a, b]}}"
	base := parse(t, src).Version()
	if len(base) != 12 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Errorf("the version is %q", base)
	}
	for name, same := range map[string]string{
		"layout":   "# A comment.\nsinks:\n  a:\n    http:\n      url: http://a/\n    timeout: \"3s\"\n  b: {stdout: }\nrules: {r: {match: {type: [x, y]}, to: [a, b]}}",
		"order":    "rules: {r: {to: [a, b], match: {type: [x, y]}}}\nsinks: {b: {stdout: {}}, a: {timeout: 3s, http: {url: 'http://a/'}}}",
		"an alias": "sinks: {a: {http: {url: 'http://a/'}, timeout: 3s}, b: {stdout: {}}}\nrules: {r: {match: {type: &t [x, y]}, to: [a, b]}}",
		"tests":    src + "\ntests: [{event: {}, expect: []}]",
	} {
		if got := parse(t, same).Version(); got != base {
			t.Errorf("%s: the version is %s, was %s", name, got, base)
		}
	}
	for _, old := range []string{"3s", "[x, y]", "http://a/"} {
		other := strings.Replace(src, old, map[string]string{"3s": "4s", "[x, y]": "[y, x]", "http://a/": "http://b/"}[old], 1)
		if got := parse(t, other).Version(); got == base {
			t.Errorf("%q changed and the version did not", old)
		}
	}
	dir := write(t, map[string]string{"1.yaml": strings.SplitAfter(src, "\n")[1], "2.yaml": strings.SplitAfter(src, "\n")[0]})
	if c, err := config.Load(dir, options()); err != nil || c.Version() != base {
		t.Errorf("split into files: %v", err)
	}
}

func TestEntryVersion(t *testing.T) {
	t.Parallel()
	const src = "sinks: {a: {http: {url: 'http://a/'}, timeout: 3s}, ab: {stdout: {}}}\nrules: {r: {match: {type: [x]}, to: [a, ab]}}"
	base := parse(t, src)
	other := parse(t, strings.Replace(src, "3s", "4s", 1))
	for _, e := range []struct {
		section, name string
		same          bool
	}{{"sinks", "a", false}, {"sinks", "ab", true}, {"rules", "r", true}} {
		v := base.EntryVersion(e.section, e.name)
		if len(v) != 12 || (other.EntryVersion(e.section, e.name) == v) != e.same {
			t.Errorf("%s %s: %q, then %q", e.section, e.name, v, other.EntryVersion(e.section, e.name))
		}
	}
	if v := base.EntryVersion("sinks", "b"); v != "" {
		t.Errorf("a sink that is not there has the version %q", v)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	from := parse(t, whole)
	for name, tc := range map[string]struct{ old, new, want string }{
		"nothing":      {"", "", "nothing changed"},
		"moved":        {"\nserver:", "\n\n\nserver:", "nothing changed"},
		"timeout":      {"timeout: 60s", "timeout: 61s", "sinks ~thumbs"},
		"settings":     {"follow: true", "follow: false", "sinks ~thumbs"},
		"kind":         {"audit: {stdout: }", "audit: {http: {url: 'http://a/'}}", "sinks ~audit"},
		"sink":         {"  audit: {stdout: }", "  audit: {stdout: }\n  new: {stdout: }", "sinks +new"},
		"rule":         {"enabled: false", "enabled: true", "rules ~paused"},
		"rule renamed": {"  paused:", "  stopped:", "rules +stopped -paused"},
		"source":       {"  nightly: {cron: {schedule: \"0 2 * * *\"}}\n", "", "sources -nightly"},
		"pattern":      {"prefix: object", "suffix: object", "rules ~images ~paused"},
		"server":       {"drain_timeout: 10s", "drain_timeout: 11s", "server"},
		"tokens":       {"token: \"${env:TOKEN}\"", "token: other", "server"},
		"sections":     {"sync: 100ms", "sync: always", "store"},
		"unmatched":    {"unmatched: [audit]", "unmatched: []", "unmatched"},
		"tests":        {"a picture", "one picture", "tests"},
	} {
		to := parse(t, strings.Replace(whole, tc.old, tc.new, 1))
		changes := config.Diff(from, to)
		if got := changes.String(); got != tc.want || changes.Empty() != (got == "nothing changed") || changes.LogValue().String() != got {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	opts := options()
	opts.ReadFile = func(string) ([]byte, error) { return []byte("rotated"), nil }
	to, err := config.Parse("f", []byte(whole), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Diff(from, to).String(); got != "sinks ~thumbs" || from.Version() != to.Version() {
		t.Errorf("after a token was rotated: %s, versions %s and %s", got, from.Version(), to.Version())
	}
}

func TestDoc(t *testing.T) {
	t.Parallel()
	kinds, beside, _ := strings.Cut(config.Doc(options()), "every sink, beside its kind:\n")
	golden(t, "testdata/doc.want", kinds)
	if !strings.Contains(beside, "  retry.preset ") || !strings.Contains(beside, " 30s ") {
		t.Errorf("the options of every sink are\n%s", beside)
	}
	var out bytes.Buffer
	for _, k := range config.Keys() {
		if k.Doc == "" {
			t.Errorf("%s is not documented", k.Key)
		}
		fmt.Fprintf(&out, "%s | %s | %s | %v | %s\n", k.Key, k.Type, k.Default, k.Enum, k.Doc)
	}
	golden(t, "testdata/keys.want", out.String())
}

func TestSchema(t *testing.T) {
	t.Parallel()
	text := config.Schema(options())
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("sluice.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	for src, valid := range map[string]bool{
		whole:                                  true,
		"sinks: {a: {stdout: }}\nrules:\n":     true,
		"server: {auth: none}":                 true,
		"sinks: {a: {http: {url: 1}}}":         false,
		"sinks: {a: {http: {}, stdout: {}}}":   false,
		"sinks: {a: {}}":                       false,
		"sinks: {a: {stdout: {}, timeuot: 1}}": false,
		"sinks: {'a b': {stdout: {}}}":         false,
		"sources: {a: {http: {}, cron: {}}}":   false,
		"rules: {r: {match: {type: [x]}}}":     false,
		"server: {drain_timeout: 30}":          false,
		"surver: {}":                           false,
	} {
		var v any
		if err := yaml.Unmarshal([]byte(src), &v); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(textKeys(v))
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance); (err == nil) != valid {
			t.Errorf("%.60q: %v", src, err)
		}
		_, err = config.Parse("f", []byte(src), options())
		var faults config.Faults
		if errors.As(err, &faults) == valid {
			t.Errorf("%.60q: the loader says %v", src, err)
		}
	}
}

// textKeys gives every mapping keys that JSON can have.
func textKeys(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, val := range v {
			v[key] = textKeys(val)
		}
	case map[any]any:
		m := make(map[string]any, len(v))
		for key, val := range v {
			m[fmt.Sprint(key)] = textKeys(val)
		}
		return m
	case []any:
		for i, val := range v {
			v[i] = textKeys(val)
		}
	}
	return v
}
