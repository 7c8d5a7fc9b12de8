package sources

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/bus"
)

// upload is what happened to one object: the normal form that every flavour of S3
// and each of the three ways in is brought to.
type upload struct {
	name        string // of what happened, in the words of S3: ObjectCreated:Put
	bucket      string
	key         string // plain, with nothing encoded
	size        int64  // noSize when it is not known
	etag        string // without quotes
	version     string
	sequencer   string
	region      string
	contentType string
	at          time.Time
	salt        string // sets it apart from others that are the same otherwise
	raw         []byte // the record as it came, in JSON; nil when there is none
}

// noSize is the size of an object that is gone, or whose record does not tell.
const noSize = -1

// uploadData is the data of the event, and how it is spelled.
type uploadData struct {
	Bucket      string          `json:"bucket"`
	Key         string          `json:"key,omitempty"`
	Size        *int64          `json:"size,omitempty"`
	ETag        string          `json:"etag,omitempty"`
	Version     string          `json:"version,omitempty"`
	Sequencer   string          `json:"sequencer,omitempty"`
	EventTime   string          `json:"event_time,omitempty"`
	Region      string          `json:"region,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
	Raw         json.RawMessage `json:"raw,omitempty"`
}

// event is the CloudEvent: the type is uploadType, the source s3/<bucket> and the
// subject the key, percent-encoded where an attribute cannot hold it. Its id is the
// same whenever the same upload is told again, and another one for each upload.
func (u upload) event() (bus.Event, error) {
	u.version, u.etag = plainVersion(u.version), plainETag(u.etag)
	kind := uploadType(u.name)
	if err := u.check(kind); err != nil {
		return bus.Event{}, err
	}
	data, err := u.data(kind)
	if err != nil {
		return bus.Event{}, err
	}
	attrs := []bus.Attr{
		{Name: "id", Value: u.id(kind)},
		{Name: "source", Value: "s3/" + url.PathEscape(u.bucket)},
		{Name: "type", Value: kind},
		{Name: "datacontenttype", Value: "application/json"},
	}
	if u.key != "" {
		attrs = append(attrs, bus.Attr{Name: "subject", Value: u.subject()})
	}
	if !u.at.IsZero() {
		attrs = append(attrs, bus.Attr{Name: "time", Value: u.time()})
	}
	return bus.NewEvent(attrs, data)
}

func (u upload) check(kind string) error {
	switch {
	case kind == "":
		return fmt.Errorf("the name of the event, %q, is not one of S3: it should look like ObjectCreated:Put", u.name)
	case u.bucket == "":
		return errors.New("the name of the bucket is missing")
	case u.key == "" && !strings.HasPrefix(kind, "bucket."):
		return errors.New("the key of the object is missing")
	case !utf8.ValidString(u.bucket + u.key + u.etag + u.version + u.sequencer + u.region + u.contentType):
		return errors.New("the record holds text that is not UTF-8")
	}
	return nil
}

func (u upload) data(kind string) ([]byte, error) {
	d := uploadData{
		Bucket: u.bucket, Key: u.key, ETag: u.etag, Version: u.version, Sequencer: u.sequencer,
		EventTime: u.time(), Region: u.region, ContentType: u.contentType, Raw: u.raw,
	}
	// What is gone has no size; versitygw says 0.
	if u.size >= 0 && !strings.HasPrefix(kind, "object.removed") {
		d.Size = &u.size
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("the record is not JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (u upload) time() string {
	if u.at.IsZero() {
		return ""
	}
	return u.at.UTC().Format(time.RFC3339Nano)
}

// id tells uploads apart by all that can differ between two of them. The id of the
// request is no part of it: all objects that one request deletes share it.
func (u upload) id(kind string) string {
	h := sha256.New()
	for _, part := range []string{u.bucket, u.key, u.version, u.sequencer, kind, u.time(), u.etag, u.salt} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	const enough = 20 // bytes, as much as a SHA-1
	return hex.EncodeToString(h.Sum(nil)[:enough])
}

func (u upload) subject() string {
	bad := func(r rune) bool {
		return unicode.IsControl(r) || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
	}
	if !strings.ContainsFunc(u.key, bad) {
		return u.key
	}
	return url.PathEscape(u.key)
}

// plainVersion is the version of an object, "" in a bucket without versions, whose
// only version S3 calls null.
func plainVersion(v string) string {
	if v == "null" {
		return ""
	}
	return v
}

// plainETag is an ETag without the quotes that it has in HTTP.
func plainETag(tag string) string {
	if s, err := strconv.Unquote(tag); err == nil {
		return s
	}
	return tag
}

// uploadType is the type of the event for a name of S3: "ObjectCreated:Put", with or
// without "s3:" before it, is object.created.put. What is not about a bucket starts
// with object. Words are parted by _: object.created.complete_multipart_upload. It
// is "" when there is no such name.
func uploadType(name string) string {
	name = strings.TrimPrefix(name, "s3:")
	parts := strings.Split(name, ":")
	words := make([]string, 0, len(parts)+1)
	for i, part := range parts {
		if !isWord(part) {
			return ""
		}
		if i > 0 {
			words = append(words, snake(part))
			continue
		}
		about := "object"
		if rest, ok := strings.CutPrefix(part, "Bucket"); ok && rest != "" {
			part, about = rest, "bucket"
		} else if rest, ok := strings.CutPrefix(part, "Object"); ok && rest != "" {
			part = rest
		}
		words = append(words, about, snake(part))
	}
	kind := strings.Join(words, ".")
	// versitygw names the request: the object is deleted like any other.
	if kind == "object.removed.delete_objects" {
		return "object.removed.delete"
	}
	return kind
}

func isWord(s string) bool {
	const longest = 64
	return s != "" && len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// snake writes DeleteMarkerCreated as delete_marker_created, and ACL as acl.
func snake(s string) string {
	var b strings.Builder
	for i := range len(s) {
		upper := s[i] >= 'A' && s[i] <= 'Z'
		if upper && i > 0 && (!isUpper(s[i-1]) || i+1 < len(s) && !isUpper(s[i+1])) {
			b.WriteByte('_')
		}
		if upper {
			b.WriteByte(s[i] + 'a' - 'A')
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }
