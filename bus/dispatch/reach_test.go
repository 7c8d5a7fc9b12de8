package dispatch_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// A sink that refuses the credentials says so, until it answers anything else.
func TestUnauthorizedSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		d, _, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
			o.Retry.Preset = "none"
		})))
		defer d.stop()
		for i, step := range []struct {
			answer int
			want   string
		}{
			{401, dispatch.StateActive},
			{403, dispatch.StateActive},
			{500, dispatch.StateActive}, // says nothing about credentials
			{401, dispatch.StateUnauthorized},
			{0, dispatch.StateUnauthorized}, // an outage says nothing either
			{429, dispatch.StateUnauthorized},
			{422, dispatch.StateActive},
			{403, dispatch.StateActive},
			{401, dispatch.StateActive},
			{403, dispatch.StateUnauthorized},
			{200, dispatch.StateActive},
		} {
			switch step.answer {
			case 0:
				f.set(always(errors.New("connection refused")))
			case 200:
				f.set(nil)
			default:
				f.set(always(sinks.Answered(step.answer, nil)))
			}
			d.publish(names("e", i+1)[i])
			pass(time.Millisecond)
			if got := d.Sinks()[0].State; got != step.want {
				t.Errorf("step %d, after %d: the sink is %s, want %s", i, step.answer, got, step.want)
			}
			want := "0"
			if step.want == dispatch.StateUnauthorized {
				want = "1"
			}
			text := "# HELP sluice_sink_unauthorized 1 while the sink refuses the credentials that it is given.\n# TYPE sluice_sink_unauthorized gauge\n" +
				"sluice_sink_unauthorized{sink=\"f\"} " + want + "\n"
			if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "sluice_sink_unauthorized"); err != nil {
				t.Error(err)
			}
		}
		f.set(always(sinks.Answered(401, nil)))
		d.publish("x", "y", "z")
		pass(time.Millisecond)
		if got := d.Sinks()[0].State; got != dispatch.StateUnauthorized {
			t.Errorf("after three in a row: %s", got)
		}
		// Another configuration may have other credentials.
		if err := d.Reload(t.Context(), one(t, spec("f", newFar(nil), nil))); err != nil {
			t.Fatal(err)
		}
		if got := d.Sinks()[0].State; got != dispatch.StateActive {
			t.Errorf("after a reload: %s", got)
		}
	})
}

// connected is a far side that tells of its connection.
type connected struct {
	*far
	now atomic.Pointer[sinks.Connection]
}

func (c *connected) Connection() sinks.Connection { return *c.now.Load() }

// A sink that holds a connection is asked for it.
func TestSinkConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &connected{far: newFar(nil)}
		f.now.Store(&sinks.Connection{})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil), spec("plain", newFar(nil), nil)))
		defer d.stop()
		look := func() dispatch.SinkStatus { return d.Sinks()[0] }
		if s := look(); s.Connection == nil || s.Disconnected() || d.Sinks()[1].Connection != nil {
			t.Errorf("before the first delivery: %+v; of one that cannot tell: %+v", s.Connection, d.Sinks()[1].Connection)
		}
		f.now.Store(&sinks.Connection{Err: errors.New("no route"), Since: time.Now()})
		if s := look(); !s.Disconnected() || s.Connection.Err.Error() != "no route" {
			t.Errorf("without a connection: %+v", s.Connection)
		}
		f.now.Store(&sinks.Connection{Up: true, Since: time.Now()})
		if s := look(); s.Disconnected() {
			t.Errorf("connected: %+v", s.Connection)
		}
	})
}
