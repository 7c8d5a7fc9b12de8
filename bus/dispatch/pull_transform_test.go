package dispatch_test

import (
	"testing"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/rules"
)

// What a consumer gets is the event with what the rule makes of it as data, at each
// receive by the rule as it is then, also after a restart.
func TestQueueGivesOutWhatTheTransformMakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func(template string) dispatch.Table {
			table := one(t, queueSpec(t, "q", nil, nil))
			table.Routes[0].Transform = transform(t, rules.TransformSpec{Paths: map[string]string{"n": "$.data.n"}, Template: template})
			return table
		}
		d := start(t, store, table(`{"n": <n>}`))
		d.publishData("e", `{"n": 7, "secret": "x"}`)
		pass(0)
		const want = `{"n": 7}`
		if got, err := d.Peek("q", 1); err != nil || len(got) != 1 || string(got[0].Event.Data()) != want || got[0].Unshaped != nil {
			t.Fatalf("peeked %+v, %v", got, err)
		}
		got := d.receive(1)[0]
		if e := got.Event; string(e.Data()) != want || e.ID() != "e" || e.Get("datacontenttype") != "application/json" {
			t.Fatalf("received %s", e.AppendJSON(nil))
		}
		d.Nack(t.Context(), 0, got.Receipt)
		d.stop()

		d = start(t, store.Restart(), table("n is <n>"))
		defer d.stop()
		again := d.receive(1)[0]
		if e := again.Event; string(e.Data()) != "n is 7" || e.Get("datacontenttype") != "text/plain; charset=utf-8" || again.ID != got.ID {
			t.Fatalf("received %s", e.AppendJSON(nil))
		}
		d.ack(again)
		d.settled()
	})
}

// An event that the transform has no result for is a dead letter once it is received,
// and those behind it come. The mended rule gives it out after a redrive.
func TestQueueBuriesWhatTheTransformHasNoResultFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), shaped(t, `[<n>]`, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		d.publishData("bad", `{"m": 2}`)
		pass(0)
		if got, err := d.Peek("q", 1); err != nil || got[0].Unshaped == nil || string(got[0].Event.Data()) != `{"m": 2}` || len(d.letters()) != 0 {
			t.Fatalf("peeked %+v, %v", got, err)
		}
		d.publish("good")
		got := d.receive(1)
		if len(got) != 1 || string(got[0].Event.Data()) != "[1]" {
			t.Fatalf("received %+v", got)
		}
		d.ack(got...)
		letters := d.letters()
		if len(letters) != 1 || letters[0].Reason != "transform" || string(letters[0].Event.Data()) != `{"m": 2}` {
			t.Fatalf("the dead letters are %+v", letters)
		}
		d.settled()

		table := one(t, dispatch.SinkSpec{Name: "q"})
		table.Routes[0].Transform = transform(t, rules.TransformSpec{Input: []byte("3")})
		d.mend(table)
		if got = d.receive(1); len(got) != 1 || string(got[0].Event.Data()) != "3" || got[0].Event.ID() != "bad" {
			t.Fatalf("after the redrive: %+v", got)
		}
		d.ack(got...)
		d.settled()
	})
}
