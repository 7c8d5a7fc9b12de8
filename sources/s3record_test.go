package sources

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"sluice/bus"
)

// Keys as each flavor spells them.
func TestPlainKey(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ flavor, key, want string }{
		{flavorAWS, "red+flower.jpg", "red flower.jpg"},
		{flavorAWS, "images/up+load%2B%C3%BC.json", "images/up load+ü.json"},
		{flavorAWS, "a%2520b", "a%20b"},
		{flavorAWS, "plain.txt", "plain.txt"},
		{flavorAWS, "%E6%97%A5%E6%9C%AC/%F0%9F%98%80", "日本/😀"},
		{flavorMinIO, "images%2Fup+load%2B%C3%BC.json", "images/up load+ü.json"},
		{flavorRustFS, "greeting+file+%282%29.csv", "greeting file (2).csv"},
		{flavorVersityGW, "images/up load+ü.json", "images/up load+ü.json"},
		{flavorVersityGW, "100%.txt", "100%.txt"},
		{flavorVersityGW, "a%20b+c", "a%20b+c"},
		{flavorCeph, "recordings/a+b%20.mp4", "recordings/a+b%20.mp4"},
	} {
		if got, err := plainKey(test.key, test.flavor); err != nil || got != test.want {
			t.Errorf("%s: %q is %q, %v, want %q", test.flavor, test.key, got, err, test.want)
		}
	}
	if _, err := plainKey("100%.txt", flavorAWS); err == nil || !strings.Contains(err.Error(), "set flavor to versitygw") {
		t.Errorf("a key that is not encoded: %v", err)
	}
}

// Notifications in the forms that are documented but were not captured.
func TestReadNotice(t *testing.T) {
	t.Parallel()
	const aws = `{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2","eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put","s3":{"s3SchemaVersion":"1.0","configurationId":"c","bucket":{"name":"amzn-s3-demo-bucket","arn":"arn:aws:s3:::amzn-s3-demo-bucket"},"object":{"key":"Happy+Face%21.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko","sequencer":"0055AED6DCD90281E5"}}}`
	const ceph = `{"eventVersion":"2.1","eventSource":"ceph:s3","awsRegion":"zonegroup1","eventTime":"2019-11-22T13:47:35.124724Z","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"mybucket1","arn":"arn:aws:s3:zonegroup1::mybucket1","id":"x"},"object":{"key":"my image+1.jpg","size":"1024","eTag":"37b51d194a7513e45b56f6524f2d51f2","versionId":"","sequencer":"F7E6D75DC742D108"}},"eventId":"1"}`
	const rustfs = `{"object_name":"docs/a b.txt","bucket_name":"mine","event_name":"s3:ObjectCreated:Put","data":{"eventSource":"rustfs:s3","eventTime":"2026-01-02T03:04:05.678Z","eventName":"s3:ObjectCreated:Put","s3":{"bucket":{"name":"mine"},"object":{"key":"docs%2Fa+b.txt","size":7,"eTag":"e","contentType":"text/plain","sequencer":"18"}}}}`
	bridge := func(detailType, detail string) string {
		return `{"version":"0","id":"17793124","detail-type":"` + detailType + `","source":"aws.s3","time":"2021-11-12T00:00:00Z","region":"ca-central-1","detail":{"version":"0","bucket":{"name":"b1"},"object":{"key":"a b+ü.txt","size":5,"etag":"e1","version-id":"v1","sequencer":"617f08299329d189"},` + detail + `}}`
	}
	for _, test := range []struct{ body, kind, source, key, size string }{
		{`{"Records":[` + aws + `]}`, "object.created.put", "s3/amzn-s3-demo-bucket", "Happy Face!.jpg", "1024"},
		{aws, "object.created.put", "s3/amzn-s3-demo-bucket", "Happy Face!.jpg", "1024"},
		{`{"Records":[` + ceph + `]}`, "object.created.put", "s3/mybucket1", "my image+1.jpg", "1024"},
		{`{"EventName":"s3:ObjectCreated:Put","Key":"x","Records":[` + rustfs + `]}`, "object.created.put", "s3/mine", "docs/a b.txt", "7"},
		{bridge("Object Created", `"reason":"PutObject"`), "object.created.put", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Created", `"reason":"POST Object"`), "object.created.post", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Created", `"reason":"CopyObject"`), "object.created.copy", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Created", `"reason":"CompleteMultipartUpload"`), "object.created.complete_multipart_upload", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Deleted", `"reason":"DeleteObject","deletion-type":"Permanently Deleted"`), "object.removed.delete", "s3/b1", "a b+ü.txt", ""},
		{bridge("Object Deleted", `"reason":"DeleteObject","deletion-type":"Delete Marker Created"`), "object.removed.delete_marker_created", "s3/b1", "a b+ü.txt", ""},
		{bridge("Object Deleted", `"reason":"Lifecycle Expiration","deletion-type":"Permanently Deleted"`), "object.lifecycle_expiration.delete", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Restore Initiated", `"x":1`), "object.restore.post", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Restore Completed", `"x":1`), "object.restore.completed", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Restore Expired", `"x":1`), "object.restore.delete", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Storage Class Changed", `"x":1`), "object.lifecycle_transition", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Access Tier Changed", `"x":1`), "object.intelligent_tiering", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object ACL Updated", `"x":1`), "object.acl.put", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Tags Added", `"x":1`), "object.tagging.put", "s3/b1", "a b+ü.txt", "5"},
		{bridge("Object Tags Deleted", `"x":1`), "object.tagging.delete", "s3/b1", "a b+ü.txt", "5"},
	} {
		n := readNotice([]byte(test.body), flavorAuto)
		if len(n.events) != 1 || len(n.bad) != 0 {
			t.Errorf("%s\ngives %d events and %v", test.body, len(n.events), n.bad)
			continue
		}
		e := n.events[0]
		data := gjson.ParseBytes(e.Data())
		if e.Type() != test.kind || e.Source() != test.source || data.Get("key").Str != test.key || data.Get("size").Raw != test.size || !data.Get("raw").IsObject() {
			t.Errorf("%s\ngives %s", test.body, e.AppendJSON(nil))
		}
	}
}

func TestReadNoticeBad(t *testing.T) {
	t.Parallel()
	good := `{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}`
	for _, test := range []struct {
		body, want  string
		events, bad int
	}{
		{`{`, "not JSON", 0, 1},
		{``, "not JSON", 0, 1},
		{`null`, "it has no Records", 0, 1},
		{`[1]`, "it has no Records", 0, 1},
		{strings.Repeat("[", 2000) + strings.Repeat("]", 2000), "not JSON", 0, 1},
		{`{"Records":[]}`, "", 0, 0},
		{`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}`, "", 0, 0},
		{`{"Records":[1,` + good + `,{},` + good + `]}`, "the record has no eventName", 2, 2},
		{`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{}}}]}`, "the key of the object is missing", 0, 1},
		{`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"k"}}}]}`, "the name of the bucket is missing", 0, 1},
		{`{"Records":[{"eventName":"what ever","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`, "is not one of S3", 0, 1},
		{`{"Records":[{"eventName":"ObjectCreated:Put","eventTime":"yesterday","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`, "is not one of RFC 3339", 0, 1},
		{`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"%zz"}}}]}`, "is not encoded as in a form", 0, 1},
		{`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"%ff"}}}]}`, "not UTF-8", 0, 1},
		{`{"detail-type":"Object Created","source":"aws.ec2"}`, "is not one of S3", 0, 1},
		{`{"detail-type":"Object Painted","source":"aws.s3"}`, "is not one of S3", 0, 1},
	} {
		n := readNotice([]byte(test.body), flavorAuto)
		if len(n.events) != test.events || len(n.bad) != test.bad {
			t.Errorf("%.80s gives %d events and %v", test.body, len(n.events), n.bad)
			continue
		}
		if test.bad > 0 && !strings.Contains(n.bad[0].err.Error(), test.want) {
			t.Errorf("%.80s: %v, want %q", test.body, n.bad[0].err, test.want)
		}
	}
}

// FuzzReadNotice: whatever comes in is events and dead letters; each event is valid
// and the same the next time.
func FuzzReadNotice(f *testing.F) {
	names, err := filepath.Glob("testdata/s3/*.http")
	if err != nil || len(names) == 0 {
		f.Fatal("no captured notifications", err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(raw), "\r\n\r\n")
		f.Add([]byte(body), flavorAuto)
	}
	f.Add([]byte(`{"detail-type":"Object Created","source":"aws.s3","detail":{"reason":"PutObject","bucket":{"name":"b"},"object":{"key":"k"}}}`), flavorAWS)
	f.Add([]byte(`{"Type":"Notification","TopicArn":"arn:aws:sns:r:1:t","Message":"{}"}`), flavorAuto)
	f.Fuzz(func(t *testing.T, body []byte, flavor string) {
		n, again := readNotice(body, flavor), readNotice(body, flavor)
		for i, e := range n.events {
			if e.ID() != again.events[i].ID() {
				t.Error("the id changes")
			}
			if !bus.ValidJSON(e.Data()) {
				t.Errorf("the data is not JSON: %s", e.Data())
			}
			if back, err := bus.ParseJSON(e.AppendJSON(nil)); err != nil || back.ID() != e.ID() {
				t.Errorf("the event cannot be read back: %v", err)
			}
		}
		for _, b := range n.bad {
			if b.err == nil || b.rejected().Reason == "" {
				t.Error("bad without a reason")
			}
		}
	})
}
