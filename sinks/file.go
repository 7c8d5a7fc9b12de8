package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/config/value"
)

// File are the settings of the file sink.
type File struct {
	Path   string `yaml:"path" doc:"The file to append to, one JSON CloudEvent a line; what a transform makes of one stands in its place, a text as a JSON string. Its directory is made."`
	Rotate Rotate `yaml:"rotate" doc:"When a new file is begun, and what becomes of the old ones."`
	Sync   string `yaml:"sync" enum:"always,never" doc:"When lines are forced to disk: always before a delivery counts, all that wait at once; or never, which a power loss can undo."`

	fsync func(*os.File) error // in place of Sync, for tests
}

// Rotate says how a file is exchanged for a new one. The old one gets the time into
// its name: events.ndjson becomes events-20260102T030405.000Z.ndjson.
type Rotate struct {
	Size     value.Bytes    `yaml:"size" doc:"Begin a new file before this one grows larger; 0 for any size."`
	Every    value.Duration `yaml:"every" doc:"Begin a new file with the first line of each period, counted in UTC: 1h, 24h; 0 for never."`
	Keep     int            `yaml:"keep" doc:"How many old files stay; the oldest are removed beyond that. 0 keeps all."`
	Compress bool           `yaml:"compress" doc:"Compress old files with gzip."`
}

// NewFile returns the settings with their defaults.
func NewFile() *File { return &File{Sync: syncAlways} }

// What File.Sync says.
const (
	syncAlways = "always"
	syncNever  = "never"
)

// Validate is Settings.Validate.
func (s *File) Validate() value.Faults {
	var faults value.Faults
	switch base := filepath.Base(s.Path); {
	case s.Path == "":
		faults.Add("path", "is missing: give the file to append to, such as /var/lib/sluice/events.ndjson")
	case base == "." || base == ".." || os.IsPathSeparator(s.Path[len(s.Path)-1]):
		faults.Add("path", "is a directory: give the file to append to, such as %s", filepath.Join(s.Path, "events.ndjson"))
	}
	if s.Rotate.Size < 0 {
		faults.Add("rotate.size", "is negative: write a size such as 100MiB, or leave it out")
	}
	if s.Rotate.Every != 0 && time.Duration(s.Rotate.Every) < time.Second {
		faults.Add("rotate.every", "is shorter than 1s: write a period such as 1h")
	}
	if s.Rotate.Keep < 0 {
		faults.Add("rotate.keep", "is negative: write how many old files stay, or 0 for all")
	}
	return faults
}

// Open is Settings.Open. The file is opened by the first delivery, and again when
// somebody has moved it away.
func (s *File) Open(_ context.Context, env Env) (Sink, error) {
	if err := env.unguarded("file"); err != nil {
		return nil, err
	}
	sink := &fileSink{settings: s, log: env.logger(), fsync: s.fsync, now: time.Now}
	switch {
	case s.Sync == syncNever:
		sink.fsync = func(*os.File) error { return nil }
	case sink.fsync == nil:
		sink.fsync = (*os.File).Sync
	}
	return sink, nil
}

type fileSink struct {
	settings *File
	log      *slog.Logger
	fsync    func(*os.File) error
	now      func() time.Time

	mu      sync.Mutex
	waiting []*fileLine
	writing bool // somebody takes what is waiting
	closed  bool
	work    sync.WaitGroup

	// Of the one who writes.
	file   *os.File
	size   int64
	period int64 // that the file belongs to

	tidying sync.Mutex
}

// fileLine is a line on its way.
type fileLine struct {
	ctx  context.Context //nolint:containedctx // a line that nobody waits for any more is not written
	text []byte
	done chan error

	given bool // up, before it was written
}

var errFileClosed = errors.New("the file sink is closed")

// Deliver is Sink.Deliver. All lines that wait while the disk is busy are written
// and synced together.
func (s *fileSink) Deliver(ctx context.Context, d Delivery) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	line := &fileLine{ctx: ctx, text: lineOf(d), done: make(chan error, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errFileClosed
	}
	s.waiting = append(s.waiting, line)
	if !s.writing {
		s.writing = true
		// Not in here: a disk that hangs must not hold the delivery beyond its time.
		s.work.Go(s.write)
	}
	s.mu.Unlock()
	select {
	case err := <-line.done:
		return err
	case <-ctx.Done():
		s.forget(line)
		return context.Cause(ctx)
	}
}

// forget drops a line that nobody waits for any more: while a disk hangs there may be
// many of these.
func (s *fileSink) forget(line *fileLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *fileLine) bool { return other == line })
}

// write takes what is waiting until nothing is.
func (s *fileSink) write() {
	for {
		s.mu.Lock()
		lines := s.waiting
		s.waiting = nil
		if len(lines) == 0 {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for len(lines) > 0 {
			n, err := s.commit(lines)
			for _, line := range lines[:n] {
				if line.given { // it is not in the file: this must not read as a yes
					line.done <- context.Cause(line.ctx)
					continue
				}
				line.done <- err
			}
			lines = lines[n:]
		}
	}
}

// commit makes lines durable, as many as go into the file, at least one. The error
// is about all of these.
func (s *fileSink) commit(lines []*fileLine) (n int, err error) {
	if err := s.ready(int64(len(lines[0].text))); err != nil {
		return len(lines), fmt.Errorf("write to %s: %w", s.settings.Path, err)
	}
	defer unlockFile(s.file)
	var text []byte
	for n < len(lines) && (n == 0 || s.fits(int64(len(text)+len(lines[n].text)))) {
		if lines[n].ctx.Err() == nil {
			text = append(text, lines[n].text...)
		} else {
			lines[n].given = true
		}
		n++
	}
	if _, err = s.file.Write(text); err == nil {
		err = s.fsync(s.file)
	}
	if err != nil {
		// Half a line must not stay, and what a failed sync has left nobody knows.
		err = errors.Join(fmt.Errorf("write to %s: %w", s.settings.Path, err), s.file.Truncate(s.size))
		s.drop()
		return n, err
	}
	s.size += int64(len(text))
	return n, nil
}

// fits tells that so much more goes into the file. One line always does.
func (s *fileSink) fits(more int64) bool {
	most := int64(s.settings.Rotate.Size)
	return most == 0 || s.size+more <= most
}

// ready has the right file open and locked, with room for a line.
func (s *fileSink) ready(line int64) error {
	for range 10 { // others may move the file at the same time
		if s.file == nil {
			if err := s.open(); err != nil {
				return err
			}
		}
		if err := lockFile(s.file); err != nil {
			return err
		}
		info, err := s.file.Stat()
		if err != nil {
			s.drop()
			return err
		}
		if there, err := os.Stat(s.settings.Path); err != nil || !os.SameFile(there, info) {
			s.drop()
			continue
		}
		if info.Size() != s.size { // just opened, or somebody else wrote
			if err := s.repair(info); err != nil {
				s.drop()
				return err
			}
		}
		if s.size == 0 {
			s.period = s.periodOf(s.now())
		}
		if s.size == 0 || s.fits(line) && s.period == s.periodOf(s.now()) {
			return nil
		}
		err = s.rotate()
		s.drop()
		if err != nil {
			return err
		}
	}
	return errors.New("the file is moved away again and again")
}

func (s *fileSink) periodOf(t time.Time) int64 {
	if s.settings.Rotate.Every == 0 {
		return 0
	}
	return t.UnixNano() / int64(s.settings.Rotate.Every)
}

// open opens the file, or makes it.
func (s *fileSink) open() error {
	if err := os.MkdirAll(filepath.Dir(s.settings.Path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(s.settings.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.settings.Path))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.file, s.size, s.period = f, -1, s.periodOf(info.ModTime())
	return nil
}

// drop closes the file; the next line opens it again.
func (s *fileSink) drop() {
	if s.file == nil {
		return
	}
	if err := s.file.Close(); err != nil {
		s.log.Warn("closing the file", "path", s.settings.Path, "err", err)
	}
	s.file = nil
}

// mostFragment is how much of a line a crash can have left: more is no line of ours.
const mostFragment = 64 << 20

// repair cuts off the part of a line that a crash has left at the end: it was not
// acknowledged, and is delivered again.
func (s *fileSink) repair(info fs.FileInfo) error {
	end := info.Size()
	buf := make([]byte, 64<<10)
	for at := end; at > 0; {
		n := min(at, int64(len(buf)))
		at -= n
		if _, err := s.file.ReadAt(buf[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] == '\n' {
				return s.cut(at+i+1, end)
			}
		}
		if end-at > mostFragment {
			return fmt.Errorf("it does not end with a whole line: it is no file of this sink, name another")
		}
	}
	return s.cut(0, end)
}

func (s *fileSink) cut(to, end int64) error {
	s.size = to
	if to == end {
		return nil
	}
	s.log.Warn("half a line at the end of the file is cut off: it is delivered again", "path", s.settings.Path, "bytes", end-to)
	return s.file.Truncate(to)
}

// closePatience is how long Close waits for a disk.
const closePatience = 5 * time.Second

// Close waits for what is being written, and may be called twice.
func (s *fileSink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	over := make(chan struct{})
	go func() {
		s.work.Wait()
		close(over)
	}()
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-over:
	case <-late.C:
		return fmt.Errorf("the disk of %s does not answer: the file stays open", s.settings.Path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
