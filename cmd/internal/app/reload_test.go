package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

func TestReload(t *testing.T) {
	t.Parallel()
	old, now := apptest.NewFunction(t, nil), apptest.NewFunction(t, nil)
	n := apptest.Start(t, toOne(old, ""))
	before := n.Config().Version()
	n.MustPublish("1", "order", `{}`)
	apptest.Eventually(t, "the first sink has it", func() bool { return old.Delivered()["1"] == 1 })

	n.WriteConfig(toOne(now, ", concurrency: 4"))
	r := n.Reload(t.Context())
	if !r.OK || !slices.Equal(r.Changes.Sinks.Changed, []string{"hook"}) || n.Config().Version() == before {
		t.Fatalf("got %+v", r)
	}
	n.MustPublish("2", "order", `{}`)
	apptest.Eventually(t, "the second sink has it", func() bool { return now.Delivered()["2"] == 1 })
	if len(old.Requests()) != 1 {
		t.Error("the first sink got more")
	}
	if r := n.Reload(t.Context()); !r.OK || !r.Changes.Empty() {
		t.Errorf("the same config again: %+v", r)
	}
}

// A config that is wrong in any way leaves the one before running, and says so in
// the log, the metrics and /readyz?verbose.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	good := toOne(f, "")
	for name, c := range map[string]struct{ yaml, want string }{
		"syntax": {"sinks: [", "sluice.yaml:1"},
		"fault":  {strings.Replace(good, "to: [hook]", "to: [hok]", 1), "there is no sink"},
		"test": {good + `
tests:
  - {name: nowhere, event: {source: a, type: b}, expect: []}
`, "tests[0] (nowhere): the event goes to hook too; the rules that match it: all"},
		"path":        {good + "sources: {in: {http: {path: /metrics}}}\n", "the path /metrics is the bus's own"},
		"certificate": {good + "server: {tls: {cert: /nowhere, key: /nowhere}}\n", "server.tls"},
		"exposed":     {good + "server: {auth: {tokens: [{name: a}]}}\n", "has no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := apptest.Start(t, good)
			version := n.Config().Version()
			n.WriteConfig(c.yaml)
			var r struct {
				OK    bool
				Error string
			}
			n.Post("/api/v1/reload", "", &r)
			if r.OK || !strings.Contains(r.Error, c.want) {
				t.Fatalf("got %+v", r)
			}
			ready := n.Do("GET", "/readyz?verbose", "")
			if ready.Status != 200 || !strings.Contains(string(ready.Body), "the last reload failed") || !strings.Contains(string(ready.Body), version) {
				t.Errorf("readyz: %d %s", ready.Status, ready.Body)
			}
			if m := metricsOf(t, n); m["sluice_config_last_reload_successful"] != 0 || m["sluice_config_last_reload_success_timestamp_seconds"] == 0 {
				t.Error("the metrics do not tell")
			}
			if !strings.Contains(n.Logs.String(), "the one before still runs") {
				t.Error("the log does not tell")
			}
			n.MustPublish(name, "order", `{}`)
			apptest.Eventually(t, "it still delivers", func() bool { return f.Delivered()[name] == 1 })
			n.WriteConfig(good)
			if r := n.Reload(t.Context()); !r.OK || metricsOf(t, n)["sluice_config_last_reload_successful"] != 1 {
				t.Errorf("mended: %+v", r)
			}
		})
	}
}

func TestSettingsThatNeedARestart(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	n := apptest.Start(t, toOne(f, "")+"server: {listen: 127.0.0.1:0}\n", func(o *app.Options) { o.Listen = "" })
	n.WriteConfig(toOne(f, "") + "store: {sync: 100ms, dir: elsewhere}\nserver: {listen: 127.0.0.1:1, read_timeout: 2m}\n")
	want := []string{"server.listen", "server.read_timeout", "store.dir", "store.sync"}
	if r := n.Reload(t.Context()); !r.OK || !slices.Equal(r.NeedRestart, want) {
		t.Errorf("got %+v", r)
	}
	if ready := string(n.Do("GET", "/readyz?verbose", "").Body); !strings.Contains(ready, "a restart is needed for "+strings.Join(want, ", ")) {
		t.Errorf("readyz: %s", ready)
	}
}

// The config is read again when its files change, however they are replaced.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	config := func(rule string) string { return strings.Replace(toOne(f, ""), "all:", rule+":", 1) }
	runs := func(n *apptest.Node, rule string) {
		t.Helper()
		apptest.Eventually(n.T, "rule "+rule+" is in force", func() bool { return n.Config().Rules[0].Name == rule })
	}
	soon := func(o *app.Options) { o.Watch, o.Settle = true, 10*time.Millisecond }
	t.Run("rename", func(t *testing.T) {
		t.Parallel()
		n := apptest.Start(t, config("one"), soon)
		n.WriteConfig(config("two"))
		runs(n, "two")
		n.WriteConfig("sinks: [")
		apptest.Eventually(t, "the fault is seen", func() bool { return strings.Contains(n.Logs.String(), "the one before still runs") })
		n.WriteConfig(config("three"))
		runs(n, "three")
	})
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		n := apptest.Start(t, config("one"), soon)
		if err := os.WriteFile(n.Path, []byte(config("two")), 0o600); err != nil {
			t.Fatal(err)
		}
		runs(n, "two")
	})
	t.Run("kubernetes", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		version := func(name, rule string) {
			mustDo(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			mustDo(t, os.WriteFile(filepath.Join(dir, name, "sluice.yaml"), []byte(config(rule)), 0o600))
			mustDo(t, os.Symlink(name, filepath.Join(dir, "..tmp")))
			mustDo(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		}
		version("..1", "one")
		mustDo(t, os.Symlink(filepath.Join("..data", "sluice.yaml"), filepath.Join(dir, "sluice.yaml")))
		n := apptest.Start(t, "", soon, func(o *app.Options) { o.Path = dir })
		version("..2", "two")
		mustDo(t, os.RemoveAll(filepath.Join(dir, "..1")))
		runs(n, "two")
	})
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSourcePaths(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	with := func(path string) string {
		return toOne(f, "") + fmt.Sprintf("sources: {shop: {http: {path: %s}}, kept: {http: {path: /in/kept}}}\n", path)
	}
	n := apptest.Start(t, with("/in/shop"))
	if a := n.PublishTo("/in/shop", "1", "order", `{}`); a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	n.WriteConfig(with("/in/shop2"))
	if r := n.Reload(t.Context()); !r.OK || !slices.Equal(r.Changes.Sources.Changed, []string{"shop"}) {
		t.Fatalf("got %+v", r)
	}
	for path, want := range map[string]int{"/in/shop": 404, "/in/shop2": 202, "/in/kept": 202} {
		if a := n.PublishTo(path, path, "order", `{}`); a.Status != want {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	apptest.Eventually(t, "all are delivered", func() bool { return len(f.Delivered()) == 3 })
	if got := metricsOf(t, n)[`sluice_events_accepted_total{source="shop"}`]; got != 2 {
		t.Errorf("source shop has published %v", got)
	}
	n.WriteConfig(with("/in/kept"))
	if r := n.Reload(t.Context()); r.OK || !strings.Contains(r.Error, "the path /in/kept is that of source kept already") {
		t.Errorf("got %+v", r)
	}
}

// Other credentials of an S3 endpoint are in force without closing it; another bucket
// is not.
func TestReloadCredentials(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	with := func(bucket, secret string) string {
		return toOne(f, "") + fmt.Sprintf("sources: {up: {s3: {serve: {listen: \"127.0.0.1:0\", buckets: [%s], credentials: [{access_key: uploader, secret_key: %s}]}}}}\n", bucket, secret)
	}
	n := apptest.Start(t, with("one", "first-secret"), apptest.OnDisk(t.TempDir()))
	for i, c := range []struct {
		bucket, secret string
		opened         int
	}{{"one", "other-secret", 1}, {"two", "other-secret", 2}} {
		n.WriteConfig(with(c.bucket, c.secret))
		if r := n.Reload(t.Context()); !r.OK || !slices.Equal(r.Changes.Sources.Changed, []string{"up"}) {
			t.Fatalf("got %+v", r)
		}
		if got := strings.Count(n.Logs.String(), "the S3 endpoint listens"); got != c.opened {
			t.Errorf("reload %d: it began to listen %d times, want %d", i, got, c.opened)
		}
	}
}
