package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/bus/dispatch"
	"sluice/config"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sources"
)

const whole = `
server:
  listen: 0.0.0.0:9000
  drain_timeout: 10s
  limits: {event: 64KiB, connections: 10}
  auth:
    tokens:
      - {name: ci, token: "${env:TOKEN}", scopes: [publish, admin]}
  tls: {cert: cert.pem, key: key.pem}
store: {dir: /var/lib/sluice, sync: 100ms, retain: {age: 7d, size: 1GiB}, max_bytes: 2GiB}
dead_letters: {retain: 30d}
unmatched: [audit]
sources:
  uploads: {http: {path: /in/uploads}}
  nightly: {cron: {schedule: "0 2 * * *"}}
sinks:
  thumbs:
    http:
      url: http://127.0.0.1:9000/thumb
      method: PUT
      token: ${file:/run/token}
      headers: {Authorization: "Bearer ${env:TOKEN}", X-B: b}
      retries: 5
      ratio: 1.5
      follow: true
      tags: [a, b]
      compress: true
      proxy: {url: "socks5://proxy:1080", user: me}
    timeout: 60s
    concurrency: 8
    rate: 100/s
    retry: {preset: fast, schedule: [5s, 1m]}
    verdicts: {404: retry, 409: delivered}
  audit: {stdout: }
rules:
  images:
    description: Pictures get a thumbnail.
    match: &images {type: [{prefix: object.created}], data: {size: [{numeric: [">", 1.10]}], ok: [true, null, "1"]}}
    to: [thumbs, audit]
  paused: {match: *images, to: [audit], enabled: false}
tests:
  - name: a picture
    event: {type: object.created.put, id: 12345678901234567890, data: {size: 1.10e3, ok: True, day: 2026-01-02, none: }}
    expect: [thumbs, audit]
  - {event: {type: other}, expect: []}
`

func parse(t *testing.T, src string) *config.Config {
	t.Helper()
	c, err := config.Parse("sluice.yaml", []byte(src), options())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse(t *testing.T) {
	t.Parallel()
	c := parse(t, whole)
	if len(c.Warnings) != 0 {
		t.Error(c.Warnings)
	}
	tls := config.TLS{Cert: "cert.pem", Key: "key.pem"}
	if c.Server.Listen != "0.0.0.0:9000" || time.Duration(c.Server.DrainTimeout) != 10*time.Second || c.Server.TLS != tls ||
		c.Server.Limits.EventBytes != 64<<10 || c.Server.Limits.Connections != 10 || c.Server.Limits.BatchEvents != 1000 {
		t.Errorf("the server is %+v", c.Server)
	}
	token := c.Server.Auth.Tokens[0]
	if token.Name != "ci" || token.Token.Value() != marker || cmp.Diff(token.Scopes, []string{"publish", "admin"}) != "" {
		t.Errorf("the token is %+v", token)
	}
	store := config.Store{
		Dir: "/var/lib/sluice", Sync: config.SyncEvery(100 * time.Millisecond), MaxBytes: 2 << 30,
		Retain: config.Retain{Age: value.Duration(7 * 24 * time.Hour), Size: 1 << 30},
	}
	if c.Store != store || c.DeadLetters.Retain.String() != "30d" || cmp.Diff(c.Unmatched, []string{"audit"}) != "" {
		t.Errorf("the store is %+v, dead letters stay %s, unmatched go to %v", c.Store, c.DeadLetters.Retain, c.Unmatched)
	}
	if len(c.Sources) != 2 || c.Sources[0].Name != "uploads" || c.Sources[1].Kind != "cron" || c.Sources[1].Pos.String() != "sluice.yaml:15:3" {
		t.Errorf("the sources are %+v", c.Sources)
	}
}

func TestParseSinks(t *testing.T) {
	t.Parallel()
	c := parse(t, whole)
	thumbs := c.Sinks[0].Settings.(*httpSink)
	if thumbs.URL.Path != "/thumb" || thumbs.Method != http.MethodPut || thumbs.Token.Value() != marker || thumbs.Token.Literal() ||
		thumbs.Headers["Authorization"].Value() != "Bearer "+marker || thumbs.Retries != 5 || thumbs.Ratio != 1.5 ||
		!thumbs.Follow || !thumbs.Compress || len(thumbs.Tags) != 2 || thumbs.Proxy.URL.Port() != "1080" || thumbs.Proxy.User.Value() != "me" {
		t.Errorf("thumbs is %+v", thumbs)
	}
	want := dispatch.DefaultOptions()
	want.Timeout, want.Concurrency, want.Rate = value.Duration(time.Minute), 8, value.Rate{Count: 100, Per: time.Second}
	want.Retry.Preset, want.Retry.Schedule = "fast", []value.Duration{value.Duration(5 * time.Second), value.Duration(time.Minute)}
	want.Verdicts = map[int]string{404: "retry", 409: "delivered"}
	if diff := cmp.Diff(want, c.Sinks[0].Options); diff != "" {
		t.Errorf("the options of thumbs (-want +got):\n%s", diff)
	}
	if audit := c.Sinks[1]; audit.Kind != "stdout" || audit.Name != "audit" || cmp.Diff(audit.Options, dispatch.DefaultOptions()) != "" {
		t.Errorf("audit is %+v", audit)
	}
}

func TestParseRulesAndTests(t *testing.T) {
	t.Parallel()
	c := parse(t, whole)
	images, paused := c.Rules[0], c.Rules[1]
	const pattern = `{"type":[{"prefix":"object.created"}],"data":{"size":[{"numeric":[">",1.10]}],"ok":[true,null,"1"]}}`
	if images.Match.String() != pattern || !images.Enabled || images.Description != "Pictures get a thumbnail." || len(images.To) != 2 {
		t.Errorf("images is %+v", images)
	}
	if paused.Match.String() != pattern || paused.Enabled || paused.Pos.String() != "sluice.yaml:40:3" {
		t.Errorf("paused is %+v", paused)
	}
	const event = `{"type":"object.created.put","id":12345678901234567890,"data":{"size":1.10e3,"ok":true,"day":"2026-01-02","none":null}}`
	if got := c.Tests[0]; string(got.Event) != event || got.Name != "a picture" || len(got.Expect) != 2 {
		t.Errorf("the test is %s", got.Event)
	}
	if len(c.Tests[1].Expect) != 0 {
		t.Errorf("the second test expects %v", c.Tests[1].Expect)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, "sinks: {a: {stdout: {}}}\nrules:\n")
	if c.Server.Listen != "127.0.0.1:8484" || c.Server.Exposed() || c.Server.Limits.EventBytes != 1<<20 || !c.Store.Sync.Always() ||
		c.Store.Retain.Age.String() != "3d" || c.Store.Retain.Size != 10<<30 || c.DeadLetters.Retain.String() != "14d" {
		t.Errorf("the defaults are %+v", c)
	}
	if got := c.Warnings.Error(); got != "sluice.yaml:1:9: sinks.a: warning: no rule sends events here" {
		t.Error(got)
	}
}

// Where the far side would not keep the order that the bus keeps, a warning says so.
func TestOrderWarnings(t *testing.T) {
	t.Parallel()
	opts := options()
	opts.Sinks = sinks.Kinds()
	for sink, want := range map[string]string{
		`{kafka: {brokers: ["b:1"], topic: t, key: type}, order_by: subject}`:                  "sluice.yaml:1:54: sinks.a.kafka.key: warning: is type, and order_by is subject: ",
		`{kafka: {brokers: ["b:1"], topic: t, key: subject}, order_by: subject}`:               "",
		`{kafka: {brokers: ["b:1"], topic: t}, order_by: subject}`:                             "",
		`{kafka: {brokers: ["b:1"], topic: t, key: type}}`:                                     "",
		`{order_by: subject, kafka: {brokers: ["b:1"], topic: t, balancer: round_robin}}`:      "sinks.a.kafka.balancer: warning: spreads events with the same subject",
		`{sqs: {queue_url: "http://q/1/q.fifo", region: eu, group: type}, order_by: data.x}`:   "sinks.a.sqs.group: warning: is type, and order_by is data.x: ",
		`{sqs: {queue_url: "http://q/1/q.fifo", region: eu, group: data.x}, order_by: data.x}`: "",
		`{sqs: {queue_url: "http://q/1/q", region: eu, group: type}, order_by: data.x}`:        "",
		`{sqs: {queue_url: "http://q/1/q.fifo", region: eu}, order_by: data.x}`:                "",
	} {
		c, err := config.Parse("sluice.yaml", []byte("sinks: {a: "+sink+"}\nrules: {r: {match: {type: [t]}, to: [a]}}\n"), opts)
		if err != nil {
			t.Errorf("%s: %v", sink, err)
			continue
		}
		if got := c.Warnings.Error(); (len(c.Warnings) > 0) != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", sink, got, want)
		}
	}
}

func TestServerIsExposed(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]bool{
		"127.0.0.1:8484": false, "127.9.9.9:1": false, "localhost:8484": false, "LOCALHOST:1": false, "[::1]:8484": false,
		":8484": true, "0.0.0.0:8484": true, "[::]:8484": true, "10.0.0.1:80": true, "example.com:80": true, "": true,
	} {
		if got := (config.Server{Listen: listen}).Exposed(); got != want {
			t.Errorf("%q: exposed is %v", listen, got)
		}
	}
	c := parse(t, "server: {listen: ':8484', auth: none}")
	if !c.Server.Auth.None || !c.Server.Exposed() {
		t.Errorf("the server is %+v", c.Server)
	}
}

// write makes a directory of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, src := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadDirectory(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"10-base.yaml":      "server: {drain_timeout: 5s}\nsinks: {a: {stdout: {}}}",
		"20-more.yml":       "sinks: {b: {stdout: {}}}\nrules: {r: {match: {type: [x]}, to: [a, b, c]}}\ntests: [{event: {}, expect: []}]",
		"30-empty.yaml":     "# nothing yet",
		"40.yaml":           "sinks: {c: {stdout: {}}}\ntests: [{event: {}, expect: [a]}]",
		"readme.txt":        "not: read",
		".hidden.yaml":      "not: read",
		"..data/inner.yaml": "not: read",
	})
	c, err := config.Load(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sinks) != 3 || c.Sinks[2].Name != "c" || len(c.Tests) != 2 || c.Server.DrainTimeout.String() != "5s" {
		t.Errorf("the config is %+v", c)
	}
	if got, want := c.Sinks[2].Pos.File, filepath.Join(dir, "40.yaml"); got != want {
		t.Errorf("c is in %s", got)
	}
}

func TestLoadDirectoryNamesBothPlaces(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"a.yaml": "server: {drain_timeout: 5s}\nsinks:\n  s: {stdout: {}}\nrules:\n  r: {match: {type: [x]}, to: [s]}",
		"b.yaml": "server: {drain_timeout: 6s}\nsinks:\n  s: {stdout: {}}\nrules:\n  r: {match: {type: [x]}, to: [t]}",
	})
	_, err := config.Load(dir, options())
	want := strings.ReplaceAll(`DIR/b.yaml:1:1: server: stands twice, first at DIR/a.yaml:1:1
DIR/b.yaml:3:3: sinks.s: stands twice, first at DIR/a.yaml:3:3
DIR/b.yaml:5:3: rules.r: stands twice, first at DIR/a.yaml:5:3`, "DIR", dir)
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoadDirectoryWithABrokenFile(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"a.yaml": "sinks:\n  s: {stdout: {}\n",
		"b.yaml": "sinks: {t: {stdout: {}}}\nrules:\n  r: {match: {type: [x]}, to: [s], colour: red}",
	})
	_, err := config.Load(dir, options())
	want := strings.ReplaceAll(`DIR/a.yaml:2:7: this mapping is never closed, or a comma is missing in it: write {a: 1, b: 2}
DIR/b.yaml:3:36: rules.r.colour: unknown key: what can stand here is description, match, where, to, transform or enabled`, "DIR", dir)
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoadWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), options()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	dir := t.TempDir()
	if _, err := config.Load(dir, options()); err == nil || err.Error() != "config: "+dir+" holds no *.yaml or *.yml file" {
		t.Errorf("an empty directory: %v", err)
	}
	file := filepath.Join(write(t, map[string]string{"big.yaml": strings.Repeat("#", 5<<20)}), "big.yaml")
	var faults config.Faults
	if _, err := config.Load(file, options()); !errors.As(err, &faults) {
		t.Errorf("a large file: %v", err)
	}
}

func TestFilesAndEnvironmentOfTheProcess(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"token": "abc\n"})
	src := fmt.Sprintf("sinks: {a: {http: {url: 'http://a/', token: '${file:%s/token}'}}}\nunmatched: [a]", dir)
	opts := options()
	opts.Env, opts.ReadFile = nil, nil
	c, err := config.Parse("f", []byte(src), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Sinks[0].Settings.(*httpSink).Token.Value(); got != "abc" {
		t.Errorf("the token is %q", got)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(whole))
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := config.Parse("f", src, options())
		var faults config.Faults
		if err != nil && (!errors.As(err, &faults) || len(faults) == 0) {
			t.Fatalf("no faults but %v", err)
		}
		for _, fault := range faults {
			if fault.Msg == "" || strings.Contains(fault.Msg, "%!") || fault.Line < 0 || fault.Line > strings.Count(string(src), "\n")+1 {
				t.Errorf("a bad fault: %+v", fault)
			}
		}
		if err != nil {
			return
		}
		again, err := config.Parse("f", src, options())
		if err != nil || again.Version() != c.Version() || !config.Diff(c, again).Empty() {
			t.Errorf("parsed again: %v, %v", err, config.Diff(c, again))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	var src strings.Builder
	src.WriteString("sinks: {a: {stdout: {}}}\nrules:\n")
	for i := range 10_000 {
		fmt.Fprintf(&src, "  rule%d: {match: {type: [{prefix: object.created}], data: {key: [{suffix: .jpg}], n: [%d]}}, to: [a]}\n", i, i)
	}
	b.SetBytes(int64(src.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := config.Parse("f", []byte(src.String()), options()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLimitsOfARequestHaveTheKeysOfTheHTTPSource(t *testing.T) {
	t.Parallel()
	if got := parse(t, "sinks: {}").Server.Limits.Request(); got != sources.DefaultLimits() {
		t.Errorf("the limits are %+v", got)
	}
	ours := reflect.TypeFor[config.Limits]()
	for theirs := range reflect.TypeFor[sources.Limits]().Fields() {
		key := theirs.Tag.Get("yaml")
		if !slices.ContainsFunc(slices.Collect(ours.Fields()), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == key }) {
			t.Errorf("server.limits has no %s", key)
		}
	}
}
