package dispatch

import "testing"

// TestPassage walks the two sides of the passage past one another.
func TestPassage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps func(p *passage)
		want  int64
	}{
		"the writer is ahead": {func(p *passage) {
			p.wrote(11, 2)
			p.wrote(12, 3)
			p.compare()
			p.passed(11, 2)
			p.compare()
			p.wrote(13, 9)
			p.passed(12, 3)
		}, 0},
		"the router is ahead": {func(p *passage) {
			p.passed(11, 2)
			p.passed(12, 3)
			p.compare()
			p.wrote(11, 2)
			p.passed(13, 1)
			p.wrote(12, 3)
		}, 0},
		"the router lost an event": {func(p *passage) {
			p.wrote(11, 2)
			p.wrote(12, 3)
			p.passed(11, 1)
			p.passed(12, 3)
		}, 1},
		"the last pack does not come": {func(p *passage) {
			p.wrote(11, 2)
			p.wrote(12, 3)
			p.compare()
			p.passed(11, 2)
			p.passed(13, 1)
		}, 3},
		"an event twice": {func(p *passage) {
			p.wrote(11, 2)
			p.passed(11, 3)
		}, -1},
		"a pack whose write was not answered": {func(p *passage) {
			p.passed(11, 2)
			p.passed(12, 3)
			p.compare()
			p.wrote(12, 3)
		}, 0},
		"that pack is the last": {func(p *passage) {
			p.wrote(11, 2)
			p.passed(11, 2)
			p.passed(12, 3)
			p.compare()
			p.wrote(13, 1)
			p.passed(13, 1)
			p.compare()
		}, 0},
		"what an earlier process left": {func(p *passage) {
			p.passed(9, 5)
			p.passed(10, 5)
			p.wrote(11, 1)
			p.passed(11, 1)
		}, 0},
		"a loss stays after what is well": {func(p *passage) {
			p.wrote(11, 2)
			p.passed(11, 1)
			p.compare()
			p.wrote(12, 2)
			p.passed(12, 2)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &passage{}
			p.begin(10)
			c.steps(p)
			p.compare()
			if got := p.compare(); got != c.want {
				t.Errorf("%d events are missing, want %d", got, c.want)
			}
		})
	}
}
