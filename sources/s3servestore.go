package sources

import (
	"context"
	"crypto/md5" //nolint:gosec // an ETag is an MD5
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"

	"sluice/bus"
)

// objectStore keeps objects on disk: their bytes in files with random names, and
// everything else in a database. A key is never part of a path, so that none can
// point out of the directory.
type objectStore struct {
	db    *bbolt.DB
	dir   string // of the files
	limit int64  // of one object
	out   *outbox
	since time.Time

	mu     sync.Mutex
	inUse  map[string]int  // files that are being read
	doomed map[string]bool // those of them to remove then
}

// objectRecord is what is known of an object.
type objectRecord struct {
	Files      []objectFile      `json:"files,omitempty"` // its bytes, in order
	Size       int64             `json:"size"`
	ETag       string            `json:"etag"` // the MD5 in hex; of a multipart upload with a dash and the number of parts
	Meta       map[string]string `json:"meta,omitempty"`
	Modified   time.Time         `json:"modified"`
	Sequencer  string            `json:"sequencer"`
	Invocation string            `json:"invocation,omitempty"` // see sameUpload
}

// objectFile is a file and its length.
type objectFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// sameUpload tells whether this is an upload sent again, because its answer got lost
// in a crash: SDKs send the same invocation id with each attempt.
func (r *objectRecord) sameUpload(again *objectRecord) bool {
	return r != nil && again.Invocation != "" && r.Invocation == again.Invocation && r.ETag == again.ETag
}

// quoted is the ETag as it stands in an answer.
func (r *objectRecord) quoted() string { return `"` + r.ETag + `"` }

// upload is what happened to the object.
func (r *objectRecord) upload(name objectName, what string) upload {
	u := upload{
		name: what, bucket: name.bucket, key: name.key, size: r.Size, etag: r.ETag,
		sequencer: r.Sequencer, contentType: r.Meta["Content-Type"], at: r.Modified,
	}
	return u
}

// openDatabase opens the database of a directory, which one process has at a time.
func openDatabase(dir string) (*bbolt.DB, error) {
	const (
		patience = 5 * time.Second
		delay    = 2 * time.Millisecond // that a commit waits for others
	)
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "objects.db"), 0o600, &bbolt.Options{Timeout: patience})
	if err != nil {
		return nil, fmt.Errorf("cannot open the objects in %s: %w", dir, err)
	}
	db.MaxBatchDelay = delay
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, table := range []string{tableDue, tableObjects, tableBlobs, tableUploads, tableParts, tableClock} {
			if _, err := tx.CreateBucketIfNotExists([]byte(table)); err != nil {
				return err
			}
		}
		return nil
	})
	// The directories may be new, up to that of the store: their names have to last too.
	for range 3 {
		err = errors.Join(err, syncDir(dir))
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func newObjectStore(db *bbolt.DB, dir string, limit int64, out *outbox) *objectStore {
	return &objectStore{
		db: db, dir: filepath.Join(dir, "files"), limit: limit, out: out, since: time.Now(),
		inUse: make(map[string]int), doomed: make(map[string]bool),
	}
}

// path is where a file is: in one of 256 directories.
func (s *objectStore) path(name string) string { return filepath.Join(s.dir, name[:2], name) }

// stage writes a file of its own and gives its ETag once the file and its directory
// are fsynced and the body is what the client signed. size is -1 when it is not
// known.
func (s *objectStore) stage(ctx context.Context, from io.Reader, size int64) (objectFile, []byte, error) {
	if size > s.limit {
		return objectFile{}, nil, gofakes3.ErrEntityTooLarge
	}
	var random [16]byte
	_, _ = rand.Read(random[:])
	name := hex.EncodeToString(random[:])
	file := objectFile{Name: name}
	sum, err := s.write(ctx, &file, from)
	if err == nil && size >= 0 && file.Size != size {
		err = gofakes3.ErrIncompleteBody
	}
	if err != nil {
		s.remove(name)
		return objectFile{}, nil, storeFault(err)
	}
	return file, sum, nil
}

func (s *objectStore) write(ctx context.Context, file *objectFile, from io.Reader) (sum []byte, err error) {
	path := s.path(file.Name)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err == nil {
		if err := syncDir(s.dir); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	digest := md5.New() //nolint:gosec // an ETag is an MD5
	file.Size, err = io.Copy(io.MultiWriter(f, digest), io.LimitReader(from, s.limit+1))
	if err != nil {
		return nil, err
	}
	if file.Size > s.limit {
		return nil, gofakes3.ErrEntityTooLarge
	}
	if body := bodyOf(ctx); body != nil {
		if err := body.verify(); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return digest.Sum(nil), syncDir(filepath.Dir(path))
}

// storeFault is the answer to an error of the disk. Those of the library stay as
// they are.
func storeFault(err error) error {
	var known gofakes3.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gofakes3.ErrorMessage(gofakes3.ErrSlowDown, "There is no space left for objects: try again when some was made.")
	}
	return err
}

// slowDown is the answer when the bus does not take the event.
func slowDown(err error) error {
	if err == nil {
		return nil
	}
	return gofakes3.ErrorMessage(gofakes3.ErrSlowDown, "The bus does not take the event of this request now: try again.")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// record gives what is known of an object; nil when there is none.
func (s *objectStore) record(name objectName) (rec *objectRecord, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		rec, err = recordIn(tx, name)
		return err
	})
	return rec, err
}

func recordIn(tx *bbolt.Tx, name objectName) (*objectRecord, error) {
	table := tx.Bucket([]byte(tableObjects)).Bucket([]byte(name.bucket))
	if table == nil {
		return nil, nil
	}
	doc := table.Get([]byte(name.key))
	if doc == nil {
		return nil, nil
	}
	rec := &objectRecord{}
	return rec, json.Unmarshal(doc, rec)
}

// change puts a record in the place of another, or of none, with the event of it.
type change struct {
	name   objectName
	record *objectRecord // nil removes the object
	event  bus.Event
	also   func(tx *bbolt.Tx) (unused []objectFile, err error) // in the same transaction; may be nil
}

// commit makes changes to objects that are locked, all or none. Their events are
// then due.
func (s *objectStore) commit(changes ...change) (due []dueEvent, err error) {
	var unused []string
	err = s.out.update(func(tx *bbolt.Tx) error {
		due, unused = due[:0], unused[:0] // it may be called again
		for _, c := range changes {
			names, d, err := s.make(tx, c)
			if err != nil {
				return err
			}
			unused, due = append(unused, names...), append(due, d)
		}
		return nil
	})
	if err != nil {
		return nil, storeFault(err)
	}
	s.discard(unused)
	return due, nil
}

// make makes one change and gives the files that are no longer used.
func (s *objectStore) make(tx *bbolt.Tx, c change) (unused []string, due dueEvent, err error) {
	old, err := recordIn(tx, c.name)
	if err != nil {
		return nil, due, err
	}
	if err := putRecord(tx, c.name, c.record); err != nil {
		return nil, due, err
	}
	var gone []objectFile
	if c.record != nil {
		// What is new counts first: a copy onto itself keeps its files.
		if _, err := count(tx, c.record.Files, 1); err != nil {
			return nil, due, err
		}
	}
	if c.also != nil {
		if gone, err = c.also(tx); err != nil {
			return nil, due, err
		}
	}
	if old != nil {
		gone = append(gone, old.Files...)
	}
	if unused, err = count(tx, gone, -1); err != nil {
		return nil, due, err
	}
	due, err = s.out.add(tx, c.name, c.event, "")
	return unused, due, err
}

func putRecord(tx *bbolt.Tx, name objectName, rec *objectRecord) error {
	table, err := tx.Bucket([]byte(tableObjects)).CreateBucketIfNotExists([]byte(name.bucket))
	if err != nil {
		return err
	}
	if rec == nil {
		return table.Delete([]byte(name.key))
	}
	doc, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return table.Put([]byte(name.key), doc)
}

// count notes how often files are used, and gives those that no longer are.
func count(tx *bbolt.Tx, files []objectFile, by int) (unused []string, err error) {
	table := tx.Bucket([]byte(tableBlobs))
	for _, f := range files {
		if f.Name == "" {
			continue // it is in another S3
		}
		n := by
		if was := table.Get([]byte(f.Name)); was != nil {
			n += int(binary.BigEndian.Uint32(was))
		}
		if n <= 0 {
			unused = append(unused, f.Name)
			err = table.Delete([]byte(f.Name))
		} else {
			err = table.Put([]byte(f.Name), binary.BigEndian.AppendUint32(nil, uint32(n))) //nolint:gosec // it is small
		}
		if err != nil {
			return nil, err
		}
	}
	return unused, nil
}

// discard removes files that are no longer used, when nobody reads them any more.
func (s *objectStore) discard(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if s.inUse[name] > 0 {
			s.doomed[name] = true
			continue
		}
		s.remove(name)
	}
}

// remove removes a file. One that stays is found by sweep at the next start.
func (s *objectStore) remove(name string) {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.out.env.Log.Warn("cannot remove a file of an object", "file", s.path(name), "err", err)
	}
}

// hold gives the record of an object, whose files stay until release.
func (s *objectStore) hold(name objectName) (rec *objectRecord, release func(), err error) {
	// Both under the lock: discard comes after the commit that changes the record.
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err = s.record(name)
	if err != nil || rec == nil {
		return nil, nil, err
	}
	for _, f := range rec.Files {
		s.inUse[f.Name]++
	}
	return rec, sync.OnceFunc(func() { s.let(rec.Files) }), nil
}

func (s *objectStore) let(files []objectFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		if s.inUse[f.Name]--; s.inUse[f.Name] > 0 {
			continue
		}
		delete(s.inUse, f.Name)
		if s.doomed[f.Name] {
			delete(s.doomed, f.Name)
			s.remove(f.Name)
		}
	}
}

// sweep removes the files that a crash left without a record: of uploads that did
// not end, and of objects that were being removed.
func (s *objectStore) sweep(ctx context.Context) error {
	return filepath.WalkDir(s.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || info.ModTime().After(s.since) {
			return err
		}
		known := false
		err = s.db.View(func(tx *bbolt.Tx) error {
			known = tx.Bucket([]byte(tableBlobs)).Get([]byte(entry.Name())) != nil
			return nil
		})
		if err == nil && !known {
			err = os.Remove(path)
		}
		return err
	})
}

// partETag is the ETag of a multipart upload: the MD5 of the MD5s of its parts. It is
// "" when one of them is no MD5.
func partETag(tags []string) string {
	digest := md5.New() //nolint:gosec // an ETag is an MD5
	for _, tag := range tags {
		sum, err := hex.DecodeString(tag)
		if err != nil || len(sum) != md5.Size {
			return ""
		}
		digest.Write(sum)
	}
	return hex.EncodeToString(digest.Sum(nil)) + "-" + strconv.Itoa(len(tags))
}

// libraryHash is an ETag as the library holds it, in bytes: it knows no dash, so the
// number of parts becomes two bytes at the end. plainTags turns it back.
func libraryHash(etag string) []byte {
	digest, parts, found := strings.Cut(etag, "-")
	sum, _ := hex.DecodeString(digest)
	if n, err := strconv.ParseUint(parts, 10, 16); found && err == nil {
		sum = binary.BigEndian.AppendUint16(sum, uint16(n))
	}
	return sum
}
