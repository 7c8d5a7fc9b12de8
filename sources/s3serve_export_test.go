package sources

import (
	"io"
	"net/http"
	"strings"
)

// S3Addr is the address that an S3 endpoint was given.
func S3Addr(src Source) string {
	if addr := src.(*s3Server).addr.Load(); addr != nil {
		return *addr
	}
	return ""
}

// S3Locks locks the objects of a bucket by their keys.
func S3Locks() (lock func(keys ...string) (unlock func())) {
	all := &objectLocks{locks: make(map[objectName]*objectLock)}
	return func(keys ...string) func() {
		var names []objectName
		for _, key := range keys {
			names = append(names, objectName{"bucket", key})
		}
		return all.lock(names...)
	}
}

// ReadS3Body reads an aws-chunked body, or another one, of a request with that head.
func ReadS3Body(r *http.Request, secret, frame string) ([]byte, error) {
	sig, _ := readSignature(r)
	sig.secret = secret
	body, err := newS3Body(r, strings.NewReader(frame), &sig)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(body)
}
