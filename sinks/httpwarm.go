package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/config/value"
)

// HTTPWarm keeps a function warm while nothing is delivered. It may be written as
// the time alone.
type HTTPWarm struct {
	Every  value.Duration `yaml:"every" doc:"How long nothing may be delivered before a request keeps the function warm."`
	Method string         `yaml:"method" enum:"HEAD,GET,OPTIONS" doc:"The request's method. HEAD when left out."`
	Path   string         `yaml:"path" doc:"The request's path, in place of that of the url."`
}

// UnmarshalText reads the short form, such as 5m.
func (w *HTTPWarm) UnmarshalText(text []byte) error {
	every, err := value.ParseDuration(string(text))
	if err == nil {
		*w = HTTPWarm{Every: every}
	}
	return err
}

func (w *HTTPWarm) validate() value.Faults {
	var faults value.Faults
	if w == nil {
		return nil
	}
	if time.Duration(w.Every) < time.Second {
		faults.Add("every", "must be at least 1s: write a time such as 5m")
	}
	switch w.Method {
	case "", http.MethodHead, http.MethodGet, http.MethodOptions:
	default:
		faults.Add("method", "must be HEAD, GET or OPTIONS: anything else might change something")
	}
	if w.Path != "" && (!strings.HasPrefix(w.Path, "/") || strings.ContainsAny(w.Path, "?# \r\n")) {
		faults.Add("path", "must be a path that begins with /, without a query")
	}
	return faults
}

// warmTimeout bounds one request: a function that takes longer starts all the same.
const warmTimeout = 30 * time.Second

// warmer asks the function for nothing whenever it was idle for too long.
type warmer struct {
	every time.Duration
	ask   func(ctx context.Context) error
	log   *slog.Logger
	used  atomic.Int64 // when something was delivered last, in nanoseconds since start
	start time.Time

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// newWarmer starts one; it is nil for nil settings.
func newWarmer(s *HTTPWarm, env Env, ask func(context.Context) error) *warmer {
	if s == nil {
		return nil
	}
	w := &warmer{every: time.Duration(s.Every), ask: ask, log: env.logger(), start: time.Now()}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.done.Go(w.run)
	return w
}

// touch says that something is being delivered.
func (w *warmer) touch() {
	if w != nil {
		w.used.Store(int64(time.Since(w.start)))
	}
}

func (w *warmer) run() {
	for {
		idle := time.Since(w.start) - time.Duration(w.used.Load())
		if idle >= w.every {
			w.warm()
			w.touch()
			idle = 0
		}
		timer := time.NewTimer(w.next(idle))
		select {
		case <-timer.C:
		case <-w.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// next is how long to sleep: many sinks of the same function that were opened
// together do not all ask at once.
func (w *warmer) next(idle time.Duration) time.Duration {
	return w.every - idle + time.Duration(rand.Int64N(int64(w.every/10)+1)) //nolint:gosec // it spreads requests
}

func (w *warmer) warm() {
	ctx, cancel := context.WithTimeout(w.ctx, warmTimeout)
	defer cancel()
	if err := w.ask(ctx); err != nil && w.ctx.Err() == nil {
		w.log.Debug("the request that keeps the function warm failed", "err", err)
	}
}

func (w *warmer) close() {
	if w != nil {
		w.cancel()
		w.done.Wait()
	}
}

// keepWarm makes one request. What is answered counts only for the log.
func (s *httpSink) keepWarm(settings *HTTPWarm) func(context.Context) error {
	return func(ctx context.Context) error {
		method := settings.Method
		if method == "" {
			method = http.MethodHead
		}
		res, err := s.bare(ctx, method, settings.Path, nil)
		if err != nil {
			return err
		}
		s.drain(res)
		if res.StatusCode >= 400 {
			return fmt.Errorf("%s %s answered %d", method, s.where, res.StatusCode)
		}
		return nil
	}
}
