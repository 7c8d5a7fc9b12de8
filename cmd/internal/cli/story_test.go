package cli

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/bus/dispatch"
)

// hostile fills every text in v with one that would clear a screen, move the cursor
// and begin a line.
func hostile(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.String() == "" {
			v.SetString("evil\x1b[2J\r\n\u009b31mFORGED line\x07")
		}
	case reflect.Pointer:
		if !v.IsNil() {
			hostile(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(`{"type": "evil\u001b[2J\nFORGED line", "subject": "evil\u001b[2J\nFORGED line"}`))
			return
		}
		if v.IsNil() && v.Type() != reflect.TypeFor[[]*dispatch.Story]() {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			hostile(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() && v.Type() != reflect.TypeFor[time.Time]() {
				hostile(v.Field(i))
			}
		}
	}
}

// What events, sinks and functions say stays text: it moves no cursor, and begins no
// line of its own.
func TestStorySteersNoTerminal(t *testing.T) {
	t.Parallel()
	stages := append(dispatch.Stages(), dispatch.StageReplied, dispatch.StageRedriven, dispatch.StagePurged, "")
	told := func(change func(reflect.Value)) string {
		s := &dispatch.Story{Cause: &dispatch.StoryCause{}, Replies: []*dispatch.Story{{}}}
		for _, stage := range stages {
			s.Timeline = append(s.Timeline, dispatch.Happening{Stage: stage})
		}
		for _, state := range []string{dispatch.DeliveryRetry, dispatch.DeliveryUnknown, dispatch.DeliveryBacklog} {
			s.Deliveries = append(s.Deliveries, dispatch.StoryDelivery{State: state})
		}
		all := dispatch.Stories{Stories: []*dispatch.Story{s}}
		change(reflect.ValueOf(&all))
		var out, notes bytes.Buffer
		e := &env{stdout: &out, stderr: &notes, now: time.Now, lookupEnv: func(string) (string, bool) { return "", false }, terminal: func(any) bool { return false }}
		e.tellStories(all)
		return out.String() + notes.String()
	}
	text := told(hostile)
	if strings.Count(text, "evil") < 40 {
		t.Errorf("only so much was told:\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "FORGED") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
			t.Errorf("a line that somebody else has written: %q", line)
		}
	}
}

// A reply is told below the delivery that it answers, although it was stored a moment
// before that counted as made; one of which no more is known, by its time.
func TestStoryPlacesReplies(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	child := func(id string, ms int) *dispatch.Story {
		return &dispatch.Story{ID: id, Source: "s", Accepted: []dispatch.StoryPlace{{At: at(ms)}}}
	}
	s := &dispatch.Story{
		Timeline: []dispatch.Happening{
			{At: at(0), Stage: dispatch.StageAccepted},
			{At: at(10), Stage: dispatch.StageReplied, Delivery: "d", Sink: "fn", Replies: []dispatch.EventRef{{ID: "known", Source: "s"}}},
			{At: at(11), Stage: dispatch.StageDelivered, Delivery: "other"},
			{At: at(12), Stage: dispatch.StageDelivered, Delivery: "d"},
			{At: at(20), Stage: dispatch.StagePurged},
		},
		Replies: []*dispatch.Story{child("late", 15), child("known", 9), child("later", 30), child("early", -5), child("first", 14)},
	}
	got := ""
	places := replyPlaces(s)
	for i := -1; i < len(s.Timeline); i++ {
		for _, r := range places[i] {
			got += fmt.Sprintf("%d %s %s\n", i, r.ID, r.sink)
		}
	}
	if want := "-1 early \n3 known fn\n3 first \n3 late \n4 later \n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A delivery of a replay is told by its replay, and by its rule where it has one.
func TestStoryNamesReplays(t *testing.T) {
	t.Parallel()
	teller := &teller{}
	for want, h := range map[string]dispatch.Happening{
		"→ s (r)":           {Sink: "s", Rule: "r"},
		"→ s (replay j)":    {Sink: "s", Rule: dispatch.ReplayRule, Replay: "j"},
		"→ s (r, replay j)": {Sink: "s", Rule: "r", Replay: "j"},
	} {
		if got := teller.where(&h); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
