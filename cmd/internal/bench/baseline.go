package bench

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
	"sluice/cmd/internal/api"
	"sluice/sources"
)

// The servers that the bus is compared with. Each runs in a process of its own,
// logs where it listens as the bus does, and ends with ctx or when its input
// does: then the process that started it has ended.

// ServeProxy is what one writes without a bus: it forwards each event to all of
// its sinks at the same time, waits for them, and answers 202 when all took it.
func ServeProxy(ctx context.Context, sinks []string, input io.Reader, log *slog.Logger) error {
	p := &proxy{transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	for _, address := range sinks {
		p.urls = append(p.urls, "http://"+address+"/")
	}
	defer p.transport.CloseIdleConnections()
	return serve(ctx, p, input, log)
}

// ServeDoor is the bus without its store: the same handlers, which say that an
// event is durable and forget it.
func ServeDoor(ctx context.Context, input io.Reader, log *slog.Logger) error {
	view := &api.View{Tokens: &api.Tokens{}, Ingest: sources.NewHandler(forgetful{}, sources.HandlerOptions{})}
	door := api.New(api.Options{Log: log, Gather: prometheus.NewRegistry(), View: func() *api.View { return view }})
	return serve(ctx, door, input, log)
}

// forgetful is a bus.Publisher without a store.
type forgetful struct{}

// Publish is bus.Publisher.
func (forgetful) Publish(_ context.Context, events ...bus.Event) ([]bus.Result, error) {
	return make([]bus.Result, len(events)), nil
}

func serve(ctx context.Context, h http.Handler, input io.Reader, log *slog.Logger) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// The timeouts are those of the bus: they cost a little on each request.
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, input)
		cancel()
	}()
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	log.Info("ready", "listen", l.Addr().String())
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

type proxy struct {
	urls      []string
	transport *http.Transport
}

// ServeHTTP is http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	faults := make([]error, len(p.urls))
	var all sync.WaitGroup
	for i, url := range p.urls[1:] {
		all.Go(func() { faults[i+1] = p.forward(r, url, body) })
	}
	faults[0] = p.forward(r, p.urls[0], body)
	all.Wait()
	for _, err := range faults {
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func (p *proxy) forward(r *http.Request, url string, body []byte) error {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "Ce-") || name == "Content-Type" {
			req.Header[name] = values
		}
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the answer was read
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode >= 300 {
		return http.ErrNotSupported
	}
	return nil
}
