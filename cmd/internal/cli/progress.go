package cli

import "github.com/schollz/progressbar/v3"

// progress shows how far long work is: a bar for somebody at a terminal.
type progress struct {
	bar *progressbar.ProgressBar // nil: nobody watches
}

// progress starts a bar of total steps, or bytes; 0 while the total is unknown.
func (e *env) progress(total int64, what string, bytes bool) *progress {
	if e.quiet || e.json() && e.terminal(e.stdout) || !e.terminal(e.stderr) {
		return &progress{}
	}
	if total == 0 {
		total = -1
	}
	return &progress{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(bytes),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSetSpinnerChangeInterval(0), // it turns when something happens
		progressbar.OptionClearOnFinish(),
	)}
}

// shown tells whether there is a bar.
func (p *progress) shown() bool { return p.bar != nil }

// at moves the bar to done of total steps. A bar that cannot be drawn is no reason
// to stop the work.
func (p *progress) at(done, total int64, what string) {
	if p.bar == nil {
		return
	}
	p.bar.Describe(what)
	if total > 0 && p.bar.GetMax64() != total {
		p.bar.ChangeMax64(total)
	}
	_ = p.bar.Set64(done)
}

// end takes the bar away, so that the result stands alone.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		_ = p.bar.Clear()
	}
}
