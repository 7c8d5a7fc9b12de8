package sinks

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rotatedTime is the time in the name of an old file: names sort by it.
const rotatedTime = "20060102T150405.000Z"

// rotate gives the file its old name. Whoever writes next begins a new one.
func (s *fileSink) rotate() error {
	path := s.settings.Path
	ext := filepath.Ext(path)
	stem := strings.TrimSuffix(path, ext)
	at := s.now().UTC()
	for {
		name := stem + "-" + at.Format(rotatedTime) + ext
		if taken(name) || taken(name+".gz") {
			at = at.Add(time.Millisecond)
			continue
		}
		if err := os.Rename(path, name); err != nil {
			return err
		}
		break
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	s.work.Go(s.tidy)
	return nil
}

func taken(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, os.ErrNotExist)
}

// tidy compresses and removes old files. What a crash keeps it from is done at the
// next rotation.
func (s *fileSink) tidy() {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	old, err := s.rotated()
	if err == nil && s.settings.Rotate.Keep > 0 {
		for len(old) > s.settings.Rotate.Keep && err == nil {
			err = os.Remove(old[0])
			old = old[1:]
		}
	}
	for _, name := range old {
		if err == nil && s.settings.Rotate.Compress && !strings.HasSuffix(name, ".gz") && !s.isClosed() {
			err = compress(name)
		}
	}
	if err != nil {
		s.log.Warn("old files stay as they are until the next rotation", "path", s.settings.Path, "err", err)
	}
}

func (s *fileSink) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// rotated are the old files, the oldest first: those alone whose names have the
// form that rotate gives them.
func (s *fileSink) rotated() ([]string, error) {
	dir, base := filepath.Split(s.settings.Path)
	if dir == "" {
		dir = "."
	}
	ext := filepath.Ext(base)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var old []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), strings.TrimSuffix(base, ext)+"-")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if at, ok := strings.CutSuffix(strings.TrimSuffix(rest, ".gz"), ext); ok {
			if _, err := time.Parse(rotatedTime, at); err == nil {
				old = append(old, filepath.Join(dir, e.Name()))
			}
		}
	}
	slices.Sort(old)
	return old, nil
}

// compress replaces a file by a compressed one. A crash leaves one of them whole.
func compress(name string) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	part := name + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	err = errors.Join(err, zip.Close())
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compress %s: %w", name, err), os.Remove(part))
	}
	if err := os.Rename(part, name+".gz"); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return err
	}
	return os.Remove(name)
}

// syncDir makes durable which files a directory has.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
