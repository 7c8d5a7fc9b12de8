package sources

// PollSaw is the ETag of an object as a source that polls has it on disk, "" when it
// has none.
func PollSaw(set *S3, dir, key string) (etag string) {
	p := &s3Poller{set: *set.Poll}
	seen, next := p.files(dir)
	for _, path := range []string{seen, next} {
		r, err := openSeen(path, p.about())
		for err == nil {
			var o seenObject
			if o, err = r.next(); err == nil && o.key == key {
				etag = o.etag
			}
		}
		if r != nil {
			_ = r.close()
		}
	}
	return etag
}
