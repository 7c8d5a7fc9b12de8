package value_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/config/value"
)

const marker = "marker-secret-7f3a"

func resolver() value.Resolver {
	env := map[string]string{"TOKEN": marker, "EMPTY": "", "HOST": "example.com"}
	files := map[string]string{"/run/token": marker + "\n", "/run/crlf": marker + "\r\n", "/run/two": "a\n\n", "/run/empty": "\n"}
	return value.Resolver{
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if content, ok := files[path]; ok {
				return []byte(content), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"":                              "",
		"plain $5 {x} $":                "plain $5 {x} $",
		"${env:TOKEN}":                  marker,
		"Bearer ${env:TOKEN}!":          "Bearer " + marker + "!",
		"${env:NONE:-default}":          "default",
		"${env:EMPTY:-default}":         "default",
		"${env:EMPTY}":                  "",
		"${env:NONE:-}":                 "",
		"${file:/run/token}":            marker,
		"${file:/run/crlf}":             marker,
		"${file:/run/two}":              "a\n",
		"$${env:TOKEN}":                 "${env:TOKEN}",
		"$$${env:TOKEN}":                "$${env:TOKEN}",
		"${env:HOST}:${env:NONE:-8080}": "example.com:8080",
	} {
		if got, err := resolver().Expand(source); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", source, got, err, want)
		}
	}
}

func TestExpandSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"${env:NONE}":    "the environment variable NONE is not set: set it, or write ${env:NONE:-default}",
		"${TOKEN}":       "${TOKEN} is not a reference: write ${env:NAME} or ${file:/path}, or $${ for a plain ${",
		"a ${env:TOKEN":  "a ${ is never closed: add the }, or write $${ for a plain ${",
		"${env:}":        "${env:} does not name an environment variable: write a name of letters, digits and _",
		"${env:A-B}":     "${env:A-B} does not name an environment variable: write a name of letters, digits and _",
		"${file:token}":  "${file:token} is not an absolute path: write ${file:/…}",
		"${file:/none}":  "${file:/none}: open /none: file does not exist",
		"${file:/run/a}": "${file:/run/a}: open /run/a: file does not exist",
	} {
		if _, err := resolver().Expand(source); message(err) != want {
			t.Errorf("%q\n got %v\nwant %s", source, err, want)
		}
	}
	if _, err := resolver().Expand("${file:/none}"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	for source, want := range map[string]string{
		"${env:A}":   "${env:A}: the environment is not available here",
		"${file:/a}": "${file:/a}: files are not available here",
	} {
		if _, err := (value.Resolver{}).Expand(source); message(err) != want {
			t.Errorf("%q\n got %v\nwant %s", source, err, want)
		}
	}
}

func TestSecretLiteral(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		"${env:TOKEN}":        false,
		"${file:/run/token}":  false,
		"Bearer ${env:TOKEN}": false,
		marker:                true,
		"$${not a reference}": true,
	} {
		var s value.Secret
		if err := s.Resolve(source, resolver()); err != nil || s.Literal() != want || s.IsZero() {
			t.Errorf("%q: %v, literal %v", source, err, s.Literal())
		}
	}
	var s value.Secret
	if !s.IsZero() || s.Literal() || s.Value() != "" {
		t.Error("the zero secret is one")
	}
	for _, source := range []string{"", "${env:EMPTY}", "${file:/run/empty}"} {
		if err := s.Resolve(source, resolver()); err == nil {
			t.Errorf("%q is taken as a secret", source)
		}
	}
	if !value.NewSecret("a").Literal() || !value.NewSecret("a").Equal(value.NewSecret("a")) || value.NewSecret("a").Equal(value.NewSecret("b")) {
		t.Error("NewSecret")
	}
}

// settings holds values as connectors do, also where fmt cannot call methods.
type settings struct {
	Secret   value.Secret
	Pointer  *value.Secret
	Many     []value.Secret
	ByName   map[string]value.Secret
	Text     value.Text
	URL      value.URL
	Login    value.URL
	Mixed    value.URL
	hidden   value.Secret
	hidden2  value.Text
	hiddenIn struct{ s []value.Secret }
}

func secrets(t *testing.T) settings {
	t.Helper()
	var s settings
	for source, into := range map[string]*value.Secret{"${env:TOKEN}": &s.Secret, marker: &s.hidden} {
		if err := into.Resolve(source, resolver()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Text.Resolve("Bearer ${env:TOKEN}", resolver()); err != nil {
		t.Fatal(err)
	}
	for source, into := range map[string]*value.URL{
		"http://example.com/?code=${env:TOKEN}": &s.URL,
		"http://u:" + marker + "@example.com":   &s.Login,
		"http://u:" + marker + "@${env:HOST}/":  &s.Mixed,
	} {
		if err := into.Resolve(source, resolver()); err != nil {
			t.Fatal(err)
		}
	}
	s.Pointer, s.Many, s.ByName = &s.Secret, []value.Secret{s.Secret}, map[string]value.Secret{"a": s.Secret}
	s.hidden2, s.hiddenIn.s = s.Text, s.Many
	return s
}

func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	s := secrets(t)
	if s.Secret.Value() != marker || s.Text.Value() != "Bearer "+marker || s.URL.Query().Get("code") != marker || s.Mixed.Host != "example.com" {
		t.Fatal("the values are not there to be shown")
	}
	if !s.Login.Literal() || !s.Mixed.Literal() || s.URL.Literal() {
		t.Error("a literal password is not told from a reference")
	}
	var shown []string
	for _, verb := range strings.Split("v +v #v s q d x X t T e p o U c", " ") {
		for _, v := range []any{s, &s, s.Secret, s.Text, s.URL, s.Login, s.Mixed, s.Many, s.ByName} {
			shown = append(shown, fmt.Sprintf("%"+verb, v), fmt.Sprintf("%-8"+verb, v))
		}
	}
	shown = append(shown, fmt.Sprint(s), fmt.Sprintln(s.Secret), fmt.Errorf("op: %v", s).Error())
	asJSON, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("m", "all", s, "pointer", &s, "secret", s.Secret, "text", s.Text, "url", s.Login)
	}
	shown = append(shown, string(asJSON), string(asYAML), log.String())
	hexed := fmt.Sprintf("%x", marker)
	for _, text := range shown {
		if strings.Contains(text, marker) || strings.Contains(strings.ToLower(text), hexed) {
			t.Errorf("shows the secret: %s", text)
		}
	}
	if !strings.Contains(string(asJSON), `"Secret":"***"`) || !strings.Contains(string(asJSON), `Bearer ${env:TOKEN}`) {
		t.Errorf("JSON is %s", asJSON)
	}
}

func ExampleSecret() {
	env := func(string) (string, bool) { return "hunter2", true }
	var token value.Secret
	if err := token.Resolve("${env:UPLOAD_TOKEN}", value.Resolver{Env: env}); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%v %q %d\n", token, token, len(token.Value()))
	// Output: *** "***" 7
}

func ExampleParseDuration() {
	d, _ := value.ParseDuration("36h")
	_, err := value.ParseDuration("30")
	fmt.Println(d)
	fmt.Println(err)
	// Output:
	// 1d12h
	// "30" has no unit: write "30s", or another unit of ms, s, m, h, d
}

func TestSecretsContain(t *testing.T) {
	t.Parallel()
	both := value.Secrets{value.NewSecret("new"), value.NewSecret("old")}
	for sent, want := range map[string]bool{"new": true, "old": true, "": false, "ne": false, "news": false, "newold": false} {
		if got := both.Contain(sent); got != want {
			t.Errorf("%q: %v", sent, got)
		}
	}
	if (value.Secrets{}).Contain("") || value.Secrets(nil).Contain("x") {
		t.Error("no secrets contain something")
	}
	if got := fmt.Sprintf("%v %+v %s %#v", both, both, both, both); strings.Contains(got, "old") || strings.Contains(got, "new") {
		t.Errorf("printed %s", got)
	}
}
