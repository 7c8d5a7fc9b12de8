package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// manifest is our own knowledge of what the directory holds. When the meta file of
// a stream is torn, nats-server opens without that stream and says so in a log line
// alone; with the manifest we notice.
type manifest struct {
	Version int               `json:"version"`
	Streams map[string]string `json:"streams"` // name to id
	// Heads say how much the streams held when the log was last closed; Closed, that
	// nothing has changed since.
	Heads  map[string]head `json:"heads,omitempty"`
	Closed bool            `json:"closed,omitempty"`
}

const manifestName = "streams.json"

// readManifest gives an empty one for a directory without. A manifest that cannot
// be read is an error of type *json.SyntaxError or so, together with an empty one:
// the streams carry their ids too.
func readManifest(dir string) (manifest, error) {
	m := manifest{Version: 1, Streams: map[string]string{}}
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	var read manifest
	if err := json.Unmarshal(b, &read); err != nil {
		return m, err
	}
	if read.Version != 1 {
		return m, fmt.Errorf("%s is of version %d, written by a newer release", manifestName, read.Version)
	}
	for name, id := range read.Streams {
		m.Streams[name] = id
	}
	m.Heads, m.Closed = read.Heads, read.Closed
	return m, nil
}

// write replaces the manifest on disk, whole or not at all.
func (m manifest) write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, manifestName)
	if err := writeSynced(path+".new", append(b, '\n')); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncPath(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncPath makes a file, or the names in a directory, durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncTree makes every file below dir durable. nats-server does not when it is shut
// down with a sync interval.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = syncPath(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that is gone
		}
		return err
	})
}
