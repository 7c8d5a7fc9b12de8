package sources

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"sluice/bus"
)

// The flavors of S3 notifications. They differ in how they spell keys.
const (
	flavorAuto      = "auto"
	flavorAWS       = "aws"
	flavorMinIO     = "minio"
	flavorVersityGW = "versitygw"
	flavorCeph      = "ceph"
	flavorRustFS    = "rustfs"
)

func flavors() []string {
	return []string{flavorAuto, flavorAWS, flavorMinIO, flavorVersityGW, flavorCeph, flavorRustFS}
}

// notice is what one notification says.
type notice struct {
	events []bus.Event
	bad    []badRecord
	sns    *snsMessage // the envelope around what is still to be read
}

// badRecord is a part of a notification that cannot become an event.
type badRecord struct {
	raw []byte
	err error
}

// readNotice reads the body of a notification: records of S3 (of all flavors), one
// event of EventBridge, a test message, or the envelope of SNS around one of them,
// which is only opened when it was verified. A message that holds nothing to tell,
// such as a test, has no events.
func readNotice(body []byte, flavor string) notice {
	if !bus.ValidJSON(body) {
		return notice{bad: []badRecord{{body, errors.New("the notification is not JSON")}}}
	}
	doc := gjson.ParseBytes(body)
	records := doc.Get("Records")
	switch {
	case doc.Get("TopicArn").Exists() && doc.Get("Type").Exists():
		return notice{sns: readSNS(doc)}
	case records.IsArray():
		return readRecords(records, flavor)
	case doc.Get("Event").String() == "s3:TestEvent":
		return notice{}
	case doc.Get("detail-type").Exists():
		return one(doc, readEventBridge)
	case doc.Get("s3").IsObject():
		return one(doc, func(rec gjson.Result) (upload, error) { return readRecord(rec, flavor) })
	}
	return notice{bad: []badRecord{{body, errors.New("the notification is none of S3, SNS or EventBridge: it has no Records")}}}
}

func readRecords(records gjson.Result, flavor string) (n notice) {
	records.ForEach(func(_, rec gjson.Result) bool {
		next := one(rec, func(rec gjson.Result) (upload, error) { return readRecord(rec, flavor) })
		n.events = append(n.events, next.events...)
		n.bad = append(n.bad, next.bad...)
		return true
	})
	return n
}

// one is a notice of a single upload.
func one(rec gjson.Result, read func(gjson.Result) (upload, error)) notice {
	up, err := read(rec)
	if err == nil {
		var e bus.Event
		if e, err = up.event(); err == nil {
			return notice{events: []bus.Event{e}}
		}
	}
	return notice{bad: []badRecord{{[]byte(rec.Raw), err}}}
}

// readRecord reads one record in the form of AWS, which all flavors have taken over.
func readRecord(rec gjson.Result, flavor string) (upload, error) {
	raw := []byte(rec.Raw)
	if inner := rec.Get("data"); inner.Get("s3").IsObject() {
		rec = inner // RustFS used to wrap it
	}
	if flavor == flavorAuto || flavor == "" {
		flavor = flavorOf(rec)
	}
	object := rec.Get("s3.object")
	up := upload{
		name: rec.Get("eventName").String(), bucket: rec.Get("s3.bucket.name").String(),
		size: sizeOf(object.Get("size")), etag: object.Get("eTag").String(), version: object.Get("versionId").String(),
		sequencer: object.Get("sequencer").String(), region: rec.Get("awsRegion").String(),
		contentType: object.Get("contentType").String(), raw: raw,
	}
	if up.name == "" {
		return upload{}, errors.New("the record has no eventName: it is not one of S3")
	}
	if flavor == flavorVersityGW && up.size == 0 && (up.etag == "" || strings.Contains(up.etag, "-")) {
		up.size = noSize // it does not know the size of multipart uploads, and says 0
	}
	var err error
	if up.at, err = timeOf(rec.Get("eventTime")); err != nil {
		return upload{}, err
	}
	up.key, err = plainKey(object.Get("key").String(), flavor)
	return up, err
}

// flavorOf tells who wrote a record.
func flavorOf(rec gjson.Result) string {
	switch source := rec.Get("eventSource").String(); {
	case strings.HasPrefix(source, "minio"):
		return flavorMinIO
	case strings.HasPrefix(source, "rustfs"):
		return flavorRustFS
	case strings.HasPrefix(source, "ceph"):
		return flavorCeph
	case strings.HasPrefix(rec.Get("s3.bucket.arn").String(), "arn:aws:s3:::/"):
		// versitygw calls itself aws:s3, but has the path of the request in the ARN.
		return flavorVersityGW
	}
	return flavorAWS
}

// plainKey is the key of an object: AWS, MinIO and RustFS encode it as in a form,
// versitygw and Ceph leave it as it is.
func plainKey(key, flavor string) (string, error) {
	if flavor == flavorVersityGW || flavor == flavorCeph {
		return key, nil
	}
	plain, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("the key %q is not encoded as in a form: if the sender writes plain keys, set flavor to %s or %s",
			cut(key), flavorVersityGW, flavorCeph)
	}
	return plain, nil
}

// cut keeps an error short.
func cut(s string) string {
	const longest = 200
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return s
}

// sizeOf reads a size: a number, or, as Ceph documents its records, one in quotes.
func sizeOf(r gjson.Result) int64 {
	switch r.Type {
	case gjson.Number:
		return r.Int()
	case gjson.String:
		if n, err := strconv.ParseInt(r.Str, 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return noSize
}

// timeOf reads a time; one that is not there is the zero time.
func timeOf(r gjson.Result) (time.Time, error) {
	if r.String() == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, r.String())
	if err != nil || at.Year() < 1 || at.Year() > 9999 {
		return time.Time{}, fmt.Errorf("the time %q is not one of RFC 3339", cut(r.String()))
	}
	return at, nil
}

// readEventBridge reads what S3 tells through EventBridge. The keys are plain.
func readEventBridge(doc gjson.Result) (upload, error) {
	name := eventBridgeName(doc)
	if name == "" {
		return upload{}, fmt.Errorf("the EventBridge event %q of %q is not one of S3",
			cut(doc.Get("detail-type").String()), cut(doc.Get("source").String()))
	}
	at, err := timeOf(doc.Get("time"))
	if err != nil {
		return upload{}, err
	}
	object := doc.Get("detail.object")
	return upload{
		name: name, bucket: doc.Get("detail.bucket.name").String(), key: object.Get("key").String(),
		size: sizeOf(object.Get("size")), etag: object.Get("etag").String(), version: object.Get("version-id").String(),
		sequencer: object.Get("sequencer").String(), region: doc.Get("region").String(), at: at, raw: []byte(doc.Raw),
	}, nil
}

// eventBridgeName is the name that the same event has in a record of S3, "" when it
// is none (Amazon S3 User Guide, "EventBridge event message structure").
func eventBridgeName(doc gjson.Result) string {
	if doc.Get("source").String() != "aws.s3" {
		return ""
	}
	reason := doc.Get("detail.reason").String()
	marker := doc.Get("detail.deletion-type").String() == "Delete Marker Created"
	switch doc.Get("detail-type").String() {
	case "Object Created":
		switch reason {
		case "PutObject":
			return "ObjectCreated:Put"
		case "POST Object":
			return "ObjectCreated:Post"
		case "CopyObject":
			return "ObjectCreated:Copy"
		}
		return "ObjectCreated:" + onlyLetters(reason)
	case "Object Deleted":
		name, how := "ObjectRemoved:", "Delete"
		if strings.HasPrefix(reason, "Lifecycle") {
			name = "LifecycleExpiration:"
		}
		if marker {
			how = "DeleteMarkerCreated"
		}
		return name + how
	case "Object Restore Initiated":
		return "ObjectRestore:Post"
	case "Object Restore Completed":
		return "ObjectRestore:Completed"
	case "Object Restore Expired":
		return "ObjectRestore:Delete"
	case "Object Storage Class Changed":
		return "LifecycleTransition"
	case "Object Access Tier Changed":
		return "IntelligentTiering"
	case "Object ACL Updated":
		return "ObjectAcl:Put"
	case "Object Tags Added":
		return "ObjectTagging:Put"
	case "Object Tags Deleted":
		return "ObjectTagging:Delete"
	}
	return ""
}

func onlyLetters(s string) string {
	return strings.Map(func(r rune) rune {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return -1
		}
		return r
	}, s)
}
