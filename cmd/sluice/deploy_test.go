package main

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy"

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDeployFilesExist checks that what is copied, mounted or linked to is there.
func TestDeployFilesExist(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, below, path string }{
		{"Dockerfile", "../..", `(?m)^COPY ([\w.]+) ([\w.]+ )?\./$`},
		{"Dockerfile", "../..", `go build .*(\./cmd/\w+)`},
		{"compose.yaml", deploy, `- (\./[\w./]+):`},
		{"compose.yaml", deploy, `context: ([\w.]+)`},
		{"compose.yaml", "../..", `dockerfile: ([\w./]+)`},
		{"prometheus/prometheus.yml", deploy + "/prometheus", `rule_files: \[(.*)\]`},
		{"README.md", deploy, `\]\(([^)]+)\)`},
	} {
		found := regexp.MustCompile(c.path).FindAllStringSubmatch(readDeploy(t, c.file), -1)
		if len(found) == 0 {
			t.Errorf("%s: nothing looks like %s", c.file, c.path)
		}
		for _, m := range found {
			for _, path := range m[1:] {
				if _, err := os.Stat(filepath.Join(c.below, strings.TrimSpace(path))); err != nil {
					t.Errorf("%s: %v", c.file, err)
				}
			}
		}
	}
}

// TestDeployIsYAML reads every YAML and JSON file; the templates of the chart are none.
func TestDeployIsYAML(t *testing.T) {
	t.Parallel()
	read := 0
	err := filepath.WalkDir(deploy, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == "templates" {
			return fs.SkipDir
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
			read++
			var doc map[string]any
			if text, err := os.ReadFile(path); err != nil {
				return err
			} else if err := yaml.Unmarshal(text, &doc); err != nil || len(doc) == 0 {
				t.Errorf("%s: %d keys, %v", path, len(doc), err)
			}
		}
		return nil
	})
	if err != nil || read < 8 {
		t.Fatalf("%d files, %v", read, err)
	}
}

// TestDeployConfigs runs the configs of compose and of the chart with the tokens they
// ask for: the check of health, the scrape and a delivery.
func TestDeployConfigs(t *testing.T) {
	t.Parallel()
	var values struct{ Config map[string]string }
	if err := yaml.Unmarshal([]byte(readDeploy(t, "helm/sluice/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string]string{
		"compose": {"sluice.yaml": readDeploy(t, "compose/config/sluice.yaml")},
		"helm":    values.Config,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFunction(t, nil)
			dir := t.TempDir()
			address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			words := strings.NewReplacer("0.0.0.0:8484", address, "/var/lib/sluice", dir+"/data", "/run/secrets", dir, "http://function/", f.URL)
			for file, text := range files {
				write(t, filepath.Join(dir, "config", file), words.Replace(text))
			}
			write(t, dir+"/operator", "an-operator\n")
			write(t, dir+"/publisher", "a-publisher\n")
			write(t, dir+"/prometheus", "a-prometheus\n")
			p := &program{t: t, dir: dir, config: dir + "/config", base: "http://" + address, log: &lockedBuffer{}}
			p.mustCLI("validate", "--config", p.config)
			p.start()
			p.mustCLI(strings.Fields(words.Replace(healthcheck(t)))...)
			for _, c := range []struct {
				token, path string
				want        int
			}{
				{"a-prometheus", "/metrics", http.StatusOK}, {"a-publisher", "/metrics", http.StatusForbidden},
				{"an-operator", "/api/v1/status", http.StatusOK}, {"a-prometheus", "/api/v1/status", http.StatusForbidden},
			} {
				if got := as(t, c.token, p.base+c.path); got != c.want {
					t.Errorf("%s for %s: %d, want %d", c.path, c.token, got, c.want)
				}
			}
			p.mustCLI("publish", "--type", "hello", "--source", "me", "--token", "${file:"+dir+"/publisher}")
			p.until(10*time.Second, "the delivery", func() bool { return f.distinct() == 1 })
			p.stop()
		})
	}
}

// healthcheck is the command line that compose checks the health by.
func healthcheck(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`test: \[CMD, /sluice, (.*)\]`).FindStringSubmatch(readDeploy(t, "compose.yaml"))
	if m == nil {
		t.Fatal("compose.yaml has no healthcheck")
	}
	return strings.NewReplacer(",", "", `"`, "", "$$", "$").Replace(m[1])
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// as is the status of a GET by the bearer of a token.
func as(t *testing.T, token, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestProcessImage runs the build of the Dockerfile: a static program comes out.
func TestProcessImage(t *testing.T) {
	t.Parallel()
	if !full() {
		t.Skip("builds everything anew: SLUICE_INTEGRATION=1 runs it")
	}
	m := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 .*go build .*)$`).FindStringSubmatch(readDeploy(t, "Dockerfile"))
	if m == nil {
		t.Fatal("the Dockerfile builds nothing")
	}
	out := filepath.Join(t.TempDir(), "sluice")
	build := exec.Command("sh", "-c", strings.ReplaceAll(m[1], "/out/sluice", out))
	build.Dir = "../.."
	build.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH=")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", m[1], err, text)
	}
	f, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked dynamically: %s", p.Type)
		}
	}
	if f.Section(".symtab") != nil {
		t.Error("it is not stripped")
	}
	// A dependency that looks methods up by name makes the linker keep all of them: that
	// was 15 MB. go build -ldflags=-dumpdep shows what does, as <ReflectMethod>.
	if info, err := os.Stat(out); err != nil || info.Size() > 48e6 {
		t.Errorf("it is %d MB large, more than 48: %v", info.Size()/1e6, err)
	}
	if text, err := exec.Command(out, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(text), "sluice ") {
		t.Errorf("version: %v\n%s", err, text)
	}
}
