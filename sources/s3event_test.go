package sources

import (
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

func TestUploadType(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"ObjectCreated:Put":                        "object.created.put",
		"s3:ObjectCreated:Put":                     "object.created.put",
		"ObjectCreated":                            "object.created",
		"ObjectCreated:CompleteMultipartUpload":    "object.created.complete_multipart_upload",
		"ObjectRemoved:Delete":                     "object.removed.delete",
		"ObjectRemoved:DeleteObjects":              "object.removed.delete",
		"ObjectRemoved:DeleteMarkerCreated":        "object.removed.delete_marker_created",
		"s3:ObjectAccessed:Head":                   "object.accessed.head",
		"ObjectRestore:Completed":                  "object.restore.completed",
		"ObjectTagging:Put":                        "object.tagging.put",
		"ObjectAcl:Put":                            "object.acl.put",
		"LifecycleExpiration:Delete":               "object.lifecycle_expiration.delete",
		"LifecycleTransition":                      "object.lifecycle_transition",
		"ReducedRedundancyLostObject":              "object.reduced_redundancy_lost_object",
		"Replication:OperationFailedReplication":   "object.replication.operation_failed_replication",
		"s3:ObjectLifecycle:Expiration:Current":    "object.lifecycle.expiration.current",
		"s3:BucketCreated:*":                       "",
		"s3:BucketCreated":                         "bucket.created",
		"ObjectCreated:PutACL":                     "object.created.put_acl",
		"ObjectCreated:HTTPPost":                   "object.created.http_post",
		"":                                         "",
		":":                                        "",
		"ObjectCreated:":                           "",
		"Object Created":                           "",
		"Объект:Put":                               "",
		"ObjectCreated:" + strings.Repeat("x", 65): "",
	} {
		if got := uploadType(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func anUpload() upload {
	return upload{
		name: "ObjectCreated:Put", bucket: "uploads", key: "a/b ü.jpg", size: 3, etag: `"abc"`, version: "null",
		sequencer: "0A1", region: "eu-central-1", at: time.Date(2026, 11, 22, 5, 26, 40, 440e6, time.FixedZone("", 3600)),
		raw: []byte(`{"n": 1e400, "html":"<&>"}`),
	}
}

func TestUploadEvent(t *testing.T) {
	t.Parallel()
	e, err := anUpload().event()
	if err != nil {
		t.Fatal(err)
	}
	if e.Type() != "object.created.put" || e.Source() != "s3/uploads" || e.Subject() != "a/b ü.jpg" || e.Get("time") != "2026-11-22T04:26:40.44Z" {
		t.Errorf("attributes: %v", e.Attrs())
	}
	const want = `{"bucket":"uploads","key":"a/b ü.jpg","size":3,"etag":"abc","sequencer":"0A1","event_time":"2026-11-22T04:26:40.44Z","region":"eu-central-1","raw":{"n":1e400,"html":"<&>"}}`
	if got := string(e.Data()); got != want {
		t.Errorf("data\n%s\nwant\n%s", got, want)
	}
}

// The id is the same for the same upload however it is told, and differs with
// everything that tells two uploads apart.
func TestUploadID(t *testing.T) {
	t.Parallel()
	id := func(change func(*upload)) string {
		u := anUpload()
		change(&u)
		e, err := u.event()
		if err != nil {
			t.Fatal(err)
		}
		return e.ID()
	}
	first := id(func(*upload) {})
	for what, change := range map[string]func(*upload){
		"the prefix of the name": func(u *upload) { u.name = "s3:" + u.name },
		"quotes":                 func(u *upload) { u.etag = "abc" },
		"no version":             func(u *upload) { u.version = "" },
		"the zone of the time":   func(u *upload) { u.at = u.at.UTC() },
		"another raw record":     func(u *upload) { u.raw = nil },
	} {
		if got := id(change); got != first {
			t.Errorf("%s changes the id", what)
		}
	}
	seen := map[string]string{first: "nothing"}
	for what, change := range map[string]func(*upload){
		"bucket": func(u *upload) { u.bucket = "other" }, "key": func(u *upload) { u.key += "x" },
		"bucket and key": func(u *upload) { u.bucket, u.key = "uploadsa", "/b ü.jpg" },
		"etag":           func(u *upload) { u.etag = "x" }, "version": func(u *upload) { u.version = "2" },
		"sequencer": func(u *upload) { u.sequencer = "0A2" }, "name": func(u *upload) { u.name = "ObjectRemoved:Delete" },
		"time": func(u *upload) { u.at = u.at.Add(1) },
	} {
		got := id(change)
		if seen[got] != "" {
			t.Errorf("another %s has the id of another %s", what, seen[got])
		}
		seen[got] = what
	}
}

func TestUploadLimits(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, noSize} {
		u := anUpload()
		u.size = size
		e, err := u.event()
		if err != nil {
			t.Fatal(err)
		}
		if got := gjson.GetBytes(e.Data(), "size"); got.Exists() != (size == 0) {
			t.Errorf("size %d is written as %q", size, got.Raw)
		}
	}
	u := anUpload()
	u.name = "ObjectRemoved:Delete"
	u.key = "a\x01b/c"
	e, err := u.event()
	if err != nil {
		t.Fatal(err)
	}
	if gjson.GetBytes(e.Data(), "size").Exists() {
		t.Error("what is removed has a size")
	}
	if e.Subject() != "a%01b%2Fc" || gjson.GetBytes(e.Data(), "key").String() != u.key {
		t.Errorf("a key with a control character: subject %q, data %s", e.Subject(), e.Data())
	}
	for what, change := range map[string]func(*upload){
		"the key of the object is missing":      func(u *upload) { u.key = "" },
		"the name of the bucket is missing":     func(u *upload) { u.bucket = "" },
		"is not one of S3":                      func(u *upload) { u.name = "hello world" },
		"the record holds text that is not UTF": func(u *upload) { u.key = "a\xff" },
	} {
		u := anUpload()
		change(&u)
		if _, err := u.event(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q, got %v", what, err)
		}
	}
}
