package jetstream

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// logger hands what nats-server says to slog. The server tells some things nowhere
// else: that JetStream did not start, and that a stream has stopped writing.
type logger struct {
	log *slog.Logger
	// failed is called with each thing the server cannot go on after.
	failed func(error)
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug(say(format, v)) }
func (l *logger) Debugf(format string, v ...any)  { l.log.Debug(say(format, v)) }
func (l *logger) Tracef(format string, v ...any)  { l.log.Debug(say(format, v)) }

// Warnf does not pass on that packs may be large: they are meant to be.
func (l *logger) Warnf(format string, v ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(format, "Maximum payloads over") {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, say(format, v))
}

// Errorf looks for the one error that a stream does not recover from until the
// server is started anew: publishers get no reply then.
func (l *logger) Errorf(format string, v ...any) {
	text := say(format, v)
	l.log.Error(text)
	if strings.Contains(text, "Critical write error") {
		l.failed(fmt.Errorf("nats-server stopped writing: %s", text))
	}
}

// Fatalf must not end the process: the server is a part of it.
func (l *logger) Fatalf(format string, v ...any) {
	text := say(format, v)
	l.log.Error(text)
	l.failed(fmt.Errorf("nats-server: %s", text))
}

func say(format string, v []any) string { return "nats-server: " + fmt.Sprintf(format, v...) }
