package sources

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// seenObject is an object of a bucket as it was last listed.
type seenObject struct {
	key      string
	size     int64
	modified time.Time
	etag     string
}

func (o seenObject) same(p seenObject) bool {
	return o.size == p.size && o.etag == p.etag && o.modified.Equal(p.modified)
}

// A file of seen objects is a line that says what was listed, then the objects in the
// order of their keys: a length, the part of the key that differs from the one before
// with the rest of the object, and a checksum. It ends with a length of 0 and the
// number of objects: without that the listing was broken off.
const (
	seenMagic = "sluice seen objects 1 "
	seenMost  = 64 << 10 // bytes of one object
)

// errTorn is a file that ends early or is damaged from some place on.
var errTorn = errors.New("the file is torn")

// seenReader reads a file of seen objects.
type seenReader struct {
	file  *os.File
	r     *bufio.Reader
	last  seenObject
	count uint64
	good  int64 // bytes up to and with last
}

// openSeen opens the file when it is about the same listing. Otherwise the error is
// errTorn, or one of the file system.
func openSeen(path, about string) (*seenReader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &seenReader{file: file, r: bufio.NewReaderSize(file, seenMost)}
	head := seenHead(about)
	got := make([]byte, len(head))
	if _, err := io.ReadFull(r.r, got); err != nil || string(got) != head {
		return nil, errors.Join(errTorn, file.Close())
	}
	r.good = int64(len(head))
	return r, nil
}

func seenHead(about string) string { return seenMagic + about + "\n" }

// next is the next object. After the last one the error is io.EOF, and errTorn where
// the file cannot be read on.
func (r *seenReader) next() (seenObject, error) {
	length, err := binary.ReadUvarint(r.r)
	switch {
	case err != nil || length > seenMost:
		return seenObject{}, errTorn
	case length == 0:
		return seenObject{}, r.end()
	}
	rec := make([]byte, length+crc32.Size)
	if _, err := io.ReadFull(r.r, rec); err != nil {
		return seenObject{}, errTorn
	}
	body, sum := rec[:length], binary.LittleEndian.Uint32(rec[length:])
	o, ok := parseSeen(body, r.last.key)
	if !ok || sum != crc32.ChecksumIEEE(body) || r.count > 0 && o.key <= r.last.key {
		return seenObject{}, errTorn
	}
	r.last = o
	r.count++
	r.good += int64(len(binary.AppendUvarint(nil, length)) + len(rec))
	return o, nil
}

func (r *seenReader) end() error {
	var count [8]byte
	if _, err := io.ReadFull(r.r, count[:]); err != nil || binary.LittleEndian.Uint64(count[:]) != r.count {
		return errTorn
	}
	return io.EOF
}

func (r *seenReader) close() error { return r.file.Close() }

func appendSeen(dst []byte, o seenObject, last string) []byte {
	shared := 0
	for shared < len(o.key) && shared < len(last) && o.key[shared] == last[shared] {
		shared++
	}
	dst = binary.AppendUvarint(dst, uint64(shared))
	dst = binary.AppendUvarint(dst, uint64(len(o.key)-shared))
	dst = append(dst, o.key[shared:]...)
	dst = binary.AppendVarint(dst, o.size)
	dst = binary.AppendVarint(dst, o.modified.Unix())
	dst = binary.AppendVarint(dst, int64(o.modified.Nanosecond()))
	return append(dst, o.etag...)
}

func parseSeen(body []byte, last string) (o seenObject, ok bool) {
	take := func(n int) {
		if ok = ok && n > 0; ok {
			body = body[n:]
		}
	}
	ok = true
	shared, n := binary.Uvarint(body)
	take(n)
	fresh, n := binary.Uvarint(body)
	take(n)
	if !ok || shared > uint64(len(last)) || fresh > uint64(len(body)) {
		return seenObject{}, false
	}
	o.key = last[:shared] + string(body[:fresh])
	body = body[fresh:]
	o.size, n = binary.Varint(body)
	take(n)
	seconds, n := binary.Varint(body)
	take(n)
	nanos, n := binary.Varint(body)
	take(n)
	o.modified, o.etag = time.Unix(seconds, nanos).UTC(), string(body)
	return o, ok
}

// seenWriter writes a file of seen objects.
type seenWriter struct {
	file  *os.File
	w     *bufio.Writer
	last  string
	count uint64
	buf   []byte
}

// resumeSeen goes on with a file that was broken off, after its last good object, or
// begins a new one. done says that nothing is missing but to put it in its place.
func resumeSeen(path, about string) (w *seenWriter, done bool, err error) {
	w = &seenWriter{}
	good := int64(0)
	if r, err := openSeen(path, about); err == nil {
		for err == nil {
			_, err = r.next()
		}
		done = errors.Is(err, io.EOF)
		w.last, w.count, good = r.last.key, r.count, r.good
		if err := r.close(); err != nil {
			return nil, false, err
		}
	}
	if w.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		return nil, false, err
	}
	w.w = bufio.NewWriterSize(w.file, seenMost)
	if done {
		return w, true, nil
	}
	if err = w.file.Truncate(good); err == nil {
		_, err = w.file.Seek(good, io.SeekStart)
	}
	if err == nil && good == 0 {
		_, err = w.w.WriteString(seenHead(about))
	}
	if err != nil {
		return nil, false, errors.Join(err, w.file.Close())
	}
	return w, false, nil
}

// add adds an object. Its key has to come after those before.
func (w *seenWriter) add(o seenObject) error {
	w.buf = appendSeen(w.buf[:0], o, w.last)
	if len(w.buf) > seenMost {
		return fmt.Errorf("the object %q is described by more than %d bytes", cut(o.key), seenMost)
	}
	body := len(w.buf)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.ChecksumIEEE(w.buf))
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(body))
	if _, err := w.w.Write(length[:n]); err != nil {
		return err
	}
	_, err := w.w.Write(w.buf)
	w.last = o.key
	w.count++
	return err
}

// finish writes the end and makes all of it durable.
func (w *seenWriter) finish() error {
	if err := w.w.WriteByte(0); err != nil {
		return err
	}
	if _, err := w.w.Write(binary.LittleEndian.AppendUint64(nil, w.count)); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	return w.file.Sync()
}
