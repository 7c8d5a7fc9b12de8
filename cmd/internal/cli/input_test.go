package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	const one = `{"specversion":"1.0","id":"1","source":"s","type":"a"}`
	const two = `{"specversion":"1.0","id":"2","source":"s","type":"a"}`
	pretty := strings.NewReplacer("{", "{\n", ",", ",\n").Replace(one)
	for name, c := range map[string]struct{ in, want string }{
		"nothing":        {"", ""},
		"only space":     {" \n\t\n", ""},
		"lines":          {one + "\n" + two + "\n", "line 1: 1, line 2: 2"},
		"no last break":  {one + "\r\n\r\n" + two, "line 1: 1, line 3: 2"},
		"empty lines":    {"\n\n" + one, "line 3: 1"},
		"bad lines":      {"x\n" + one + "\n{}\n" + two, "line 1: bad, line 2: 1, line 3: bad, line 4: 2"},
		"batch":          {" [" + one + ",\n{}," + two + "]", "event 1: 1, event 2: bad, event 3: 2"},
		"empty batch":    {"[]", ""},
		"broken batch":   {"[" + one, "end"},
		"pretty":         {pretty + "\n" + pretty, "event 1: 1, event 2: 1"},
		"broken pretty":  {"{\n" + `"id": 1`, "end"},
		"a word":         {"hello\n", "line 1: bad"},
		"spaced out one": {"{\n\n" + one[1:], "event 1: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := readAll(newEvents(strings.NewReader(c.in))); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			// The same a byte at a time, as a slow pipe gives it.
			if got := readAll(newEvents(iotest.OneByteReader(strings.NewReader(c.in)))); got != c.want {
				t.Errorf("byte for byte: got %s, want %s", got, c.want)
			}
		})
	}
}

func readAll(in *events) string {
	var got []string
	for {
		e, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		var broken *readError
		if errors.As(err, &broken) {
			got = append(got, "end")
			break
		}
		at := in.unit() + " " + string(rune('0'+in.line)) + ": "
		if err != nil {
			got = append(got, at+"bad")
		} else {
			got = append(got, at+e.ID())
		}
	}
	return strings.Join(got, ", ")
}

func TestInputEndsWithContext(t *testing.T) {
	t.Parallel()
	r := newRig("")
	blocked, w := io.Pipe()
	defer w.Close()
	r.stdin = blocked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.input(ctx).Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
