package config_test

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"sluice/config"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sources"
)

const marker = "marker-secret-7f3a"

// options are kinds and an environment for the tests; the config package does not
// depend on the real ones.
func options() config.Options {
	env := map[string]string{"TOKEN": marker, "EMPTY": ""}
	return config.Options{
		Sinks: []sinks.Kind{
			{Name: "http", Doc: "Calls a function.", New: func() sinks.Settings { return &httpSink{Method: "POST", Retries: 3} }},
			{Name: "stdout", Doc: "Prints events.", New: func() sinks.Settings { return &stdoutSink{} }},
		},
		Sources: []sources.Kind{
			{Name: "http", Doc: "Takes events on a path.", New: func() sources.Settings { return &httpSource{Path: "/in"} }},
			{Name: "cron", Doc: "Makes an event at set times.", New: func() sources.Settings { return &cronSource{} }},
		},
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if path == "/run/token" {
				return []byte(marker + "\n"), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
}

type httpSink struct {
	URL     value.URL             `yaml:"url" doc:"Where to call."`
	Method  string                `yaml:"method" enum:"POST,PUT" doc:"How to call."`
	Headers map[string]value.Text `yaml:"headers" doc:"Headers to add."`
	Token   value.Secret          `yaml:"token" doc:"Bearer token."`
	Retries int8                  `yaml:"retries" doc:"How often."`
	Ratio   float64               `yaml:"ratio" doc:"How much."`
	Limit   int                   `yaml:"limit" doc:"How many."`
	Follow  bool                  `yaml:"follow" doc:"Whether to follow."`
	Tags    []string              `yaml:"tags" doc:"What to call it."`
	Proxy   *proxy                `yaml:"proxy" doc:"Whom to go through."`
	Shared  `yaml:",inline"`
}

type proxy struct {
	URL  value.URL    `yaml:"url" schemes:"socks5,http" doc:"Where the proxy is."`
	User value.Text   `yaml:"user" doc:"Who we are."`
	Key  value.Secret `yaml:"key" doc:"Its key."`
}

// Shared is embedded, as what several kinds have in common would be.
type Shared struct {
	Compress bool `yaml:"compress" doc:"Whether to compress."`
}

func (s *httpSink) Validate() value.Faults {
	var faults value.Faults
	if s.URL.IsZero() {
		faults = append(faults, value.Fault{Key: "url", Msg: "is missing"})
	}
	for i, tag := range s.Tags {
		if tag == "" {
			faults = append(faults, value.Fault{Key: fmt.Sprintf("tags[%d]", i), Msg: "is empty"})
		}
	}
	return faults
}

func (s *httpSink) Open(context.Context, sinks.Env) (sinks.Sink, error) { return nil, nil }

type stdoutSink struct{}

func (s *stdoutSink) Validate() value.Faults                              { return nil }
func (s *stdoutSink) Open(context.Context, sinks.Env) (sinks.Sink, error) { return nil, nil }

type httpSource struct {
	Path string `yaml:"path" doc:"The path."`
}

func (s *httpSource) Validate() value.Faults {
	if !strings.HasPrefix(s.Path, "/") {
		return value.Faults{{Key: "path", Msg: "must begin with /"}}
	}
	return nil
}

func (s *httpSource) Open(context.Context, sources.Env) (sources.Source, error) { return nil, nil }

type cronSource struct {
	Schedule string `yaml:"schedule" doc:"When."`
}

func (s *cronSource) Validate() value.Faults { return nil }

func (s *cronSource) Open(context.Context, sources.Env) (sources.Source, error) { return nil, nil }
