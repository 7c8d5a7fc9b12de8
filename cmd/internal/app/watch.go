package app

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long changed files must stay the same: editors and deployments
	// write in several steps.
	settle = 150 * time.Millisecond
	// lookEvery finds changes on volumes that do not report any.
	lookEvery = 10 * time.Second
)

// fingerprint sums up the files of a config.
type fingerprint [sha256.Size]byte

// watch reloads the config when its files have other content, until ctx ends. It
// watches directories: editors put a new file in the place of the old one, and
// Kubernetes turns a symbolic link to another directory.
func (a *App) watch(ctx context.Context) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Warn("changes of the config are seen late: its directory cannot be watched", "err", err)
		watcher = &fsnotify.Watcher{} // its channels are nil: nothing ever comes
	} else {
		defer func() { _ = watcher.Close() }()
	}
	wait := a.opts.Settle
	if wait == 0 {
		wait = settle
	}
	// The timer is not put off by more changes: in a busy directory it would never
	// fire. Files that look the same twice are complete.
	look := time.NewTimer(wait) // what changed before the watch began is seen first
	defer look.Stop()
	pending, last := true, a.readLast()
	a.follow(watcher)
	for {
		select {
		case <-watcher.Events:
			if !pending {
				pending = true
				look.Reset(wait)
			}
		case err := <-watcher.Errors:
			a.log.Warn("watching the config: a change may be seen late", "err", err)
		case <-look.C:
			a.follow(watcher) // a directory may have been replaced
			now := a.fingerprint()
			if pending = now != last; pending {
				last = now
				look.Reset(wait)
				continue
			}
			look.Reset(lookEvery)
			if now != a.readLast() {
				a.Reload(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (a *App) readLast() fingerprint {
	a.change.Lock()
	defer a.change.Unlock()
	return a.seen
}

// follow watches the directories that the config is in: as it is named, and where
// symbolic links lead.
func (a *App) follow(w *fsnotify.Watcher) {
	if w.Events == nil {
		return
	}
	paths := []string{a.opts.Path}
	if target, err := filepath.EvalSymlinks(a.opts.Path); err == nil {
		paths = append(paths, target)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			path = filepath.Dir(path)
		}
		if err := w.Add(path); err != nil {
			a.log.Warn("cannot watch a directory of the config; SIGHUP still reloads", "path", path, "err", err)
		}
	}
}

// fingerprint reads the files of the config. What cannot be read counts as empty:
// that it cannot is a change too, and the reload says what is wrong.
func (a *App) fingerprint() (sum fingerprint) {
	if a.opts.Path == "" {
		return sum
	}
	files := []string{a.opts.Path}
	if entries, err := os.ReadDir(a.opts.Path); err == nil {
		files = nil
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(a.opts.Path, e.Name()))
			}
		}
	}
	hash := sha256.New()
	for _, file := range files {
		_, _ = io.WriteString(hash, file+"\x00") // a hash takes everything
		if f, err := os.Open(file); err == nil {
			_, _ = io.Copy(hash, io.LimitReader(f, 64<<20))
			_ = f.Close()
		}
	}
	return fingerprint(hash.Sum(nil))
}
