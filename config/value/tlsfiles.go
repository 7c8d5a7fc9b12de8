package value

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
)

// TLSFiles is the configuration that the files of a TLS make. It follows them: who asks
// for it gets what they hold then.
type TLSFiles struct {
	settings TLS
	warn     func(error)

	mu     sync.Mutex
	stamps stamps
	config *tls.Config
}

// stamps tell one state of the files from another; nil where there is none.
type stamps [3]os.FileInfo

func (s stamps) same(other stamps) bool {
	for i, a := range s {
		if b := other[i]; a != nil && (b == nil || !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime())) {
			return false
		}
	}
	return true
}

// Follow reads the files, and follows them from then on. warn is told when they have
// changed and cannot be used.
func (t TLS) Follow(warn func(error)) (*TLSFiles, error) {
	f := &TLSFiles{settings: t, warn: warn}
	found, missing := f.look()
	config, err := t.Config()
	if err == nil {
		err = missing
	}
	if err != nil {
		return nil, err
	}
	f.config, f.stamps = config, found
	return f, nil
}

// look takes the stamps of the files.
func (f *TLSFiles) look() (found stamps, err error) {
	for i, path := range [3]string{f.settings.CA, f.settings.Cert, f.settings.Key} {
		if path == "" {
			continue
		}
		if found[i], err = os.Stat(path); err != nil {
			return found, fmt.Errorf("tls.%s: %w", [3]string{"ca", "cert", "key"}[i], err)
		}
	}
	return found, nil
}

// Current is the configuration that the files make now. Files that cannot be used, as
// between the change of one and of the next, leave the last one in force. It is shared:
// whoever changes it clones it before.
func (f *TLSFiles) Current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.look()
	if err == nil && found.same(f.stamps) {
		return f.config
	}
	var fresh *tls.Config
	if err == nil {
		fresh, err = f.settings.Config()
	}
	if err != nil {
		f.warn(fmt.Errorf("the files of tls have changed and cannot be used; what they held before stays in force: %w", err))
		return f.config
	}
	f.config, f.stamps = fresh, found
	return fresh
}
