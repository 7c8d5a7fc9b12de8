package sources

import (
	"errors"
	"io"
	"os"
)

// objectReader reads a part of an object, file by file.
type objectReader struct {
	path    func(name string) string
	files   []objectFile
	skip    int64 // from the beginning of files
	left    int64
	open    *os.File
	release func()
}

// Read is io.Reader.
func (r *objectReader) Read(p []byte) (int, error) {
	for r.left > 0 {
		if r.open == nil {
			if err := r.next(); err != nil {
				return 0, err
			}
		}
		n, err := r.open.Read(p[:min(int64(len(p)), r.left)])
		r.left -= int64(n)
		if errors.Is(err, io.EOF) {
			err = r.open.Close()
			r.open = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// next opens the file that holds the next byte.
func (r *objectReader) next() error {
	for len(r.files) > 0 && r.skip >= r.files[0].Size {
		r.skip -= r.files[0].Size
		r.files = r.files[1:]
	}
	if len(r.files) == 0 {
		return io.ErrUnexpectedEOF // the files are shorter than the record says
	}
	f, err := os.Open(r.path(r.files[0].Name))
	if err != nil {
		return err
	}
	if _, err := f.Seek(r.skip, io.SeekStart); err != nil {
		return err
	}
	r.open, r.files, r.skip = f, r.files[1:], 0
	return nil
}

// Close is io.Closer.
func (r *objectReader) Close() error {
	defer r.release()
	if r.open == nil {
		return nil
	}
	err := r.open.Close()
	r.open = nil
	return err
}
