package jetstream_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"

	"sluice/bus/jetstream"
)

// logBuffer is what a log said.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// logged gives options with a directory, and what is logged above debug.
func logged(t *testing.T) (jetstream.Options, *logBuffer) {
	t.Helper()
	opts, log := small(t.TempDir()), &logBuffer{}
	opts.Log = slog.New(slog.NewTextHandler(log, nil))
	return opts, log
}
