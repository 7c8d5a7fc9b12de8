package bus_test

import (
	"testing"

	"sluice/bus"
)

func TestPosition(t *testing.T) {
	t.Parallel()
	p := bus.Position{Seq: 1042, Index: 7}
	if back, err := bus.ParsePosition(p.String()); err != nil || back != p || p.String() != "1042.7" {
		t.Errorf("%s became %v, %v", p, back, err)
	}
	for _, bad := range []string{"", "1", "1.", ".1", "1.-1", "-1.1", "a.b", "1.1.1", "1.99999999999"} {
		if _, err := bus.ParsePosition(bad); err == nil {
			t.Errorf("%q is a position", bad)
		}
	}
	order := []bus.Position{{Seq: 1, Index: 9}, {Seq: 2}, {Seq: 2, Index: 1}, {Seq: 10}}
	for i, a := range order {
		for j, b := range order {
			if a.Less(b) != (i < j) {
				t.Errorf("%s less than %s: %v", a, b, a.Less(b))
			}
		}
	}
}
