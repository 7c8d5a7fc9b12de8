package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"

	"sluice/bus"
	"sluice/config/value"
)

// DeliverBatch is BatchSink.DeliverBatch: one POST of a CloudEvents batch. An
// answer that is a JSON object with batchItemFailures names the events that
// failed by their id, in the form of AWS Lambda:
//
//	{"batchItemFailures": [{"itemIdentifier": "<event id>"}]}
//
// An identifier that is empty or of no event in the batch fails all of it, as it
// does there.
func (s *httpSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	var answer []byte
	err := s.post(ctx, s.newBatch(ctx, ds), func(res *http.Response) (err error) {
		s.leaseIn(res, false, "a lease is of one event: leave batch out, and write lease")
		answer, err = readBatchAnswer(res.Body, s.maxAnswer)
		return err
	})
	if err != nil || len(answer) == 0 {
		return nil, err
	}
	return partial(s.mask(answer), ds)
}

// maxBatchAnswer is how much is read of an answer that may say which events failed:
// more than a function of AWS Lambda can answer with.
const maxBatchAnswer = 8 << 20

// readBatchAnswer reads an answer to a batch: of an object all of it, since the events
// that failed may be named anywhere in it, and of others the start. The events of an
// answer that is too large for that may have been done: to send them again and again
// would do them so often, and to count them as delivered could lose those that failed.
func readBatchAnswer(body io.Reader, most int) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil || len(answer) <= most || !isObject(answer) {
		return answer, err
	}
	rest, err := io.ReadAll(io.LimitReader(body, int64(maxBatchAnswer-len(answer)+1)))
	if answer = append(answer, rest...); err == nil && len(answer) > maxBatchAnswer {
		err = &Error{Permanent: true, MayBeDone: true, Err: fmt.Errorf("the answer is larger than %s, and the rest of it may say which events failed: "+
			"let the function answer with batchItemFailures alone, and see which of these it has done", value.Bytes(maxBatchAnswer))}
	}
	return answer, err
}

// isObject tells whether an answer begins as a JSON object does, in which
// batchItemFailures may be.
func isObject(answer []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(answer, " \t\r\n"), []byte("{"))
}

func (s *httpSink) newBatch(ctx context.Context, ds []Delivery) *outgoing {
	size := 2
	for i := range ds {
		size += ds[i].Event.Size() + 128
	}
	body := append(make([]byte, 0, size), '[')
	for i := range ds {
		if i > 0 {
			body = append(body, ',')
		}
		body = ds[i].Event.AppendJSON(body)
	}
	body = append(body, ']')
	req := s.request.WithContext(ctx)
	h := make(http.Header, len(s.header)+4)
	maps.Copy(h, s.header)
	h["Content-Type"] = []string{bus.TypeBatch}
	h["Sluice-Sink"] = []string{ds[0].Sink}
	h["Sluice-Batch"] = []string{strconv.Itoa(len(ds))}
	req.Header = h
	return &outgoing{Request: req, id: batchID(ds), body: body}
}

var errItemFailed = errors.New("the function reported the event as failed")

// partial reads an answer to a batch.
func partial(answer []byte, ds []Delivery) ([]error, error) {
	if !bytes.Contains(answer, []byte("batchItemFailures")) {
		return nil, nil
	}
	var a struct {
		BatchItemFailures []struct {
			ItemIdentifier string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("the answer has batchItemFailures and is no JSON that can be read: %w", err)
	}
	failed := make([]error, len(ds))
	for _, item := range a.BatchItemFailures {
		known := false
		for i := range ds {
			if item.ItemIdentifier != "" && ds[i].Event.ID() == item.ItemIdentifier {
				failed[i], known = errItemFailed, true
			}
		}
		if !known {
			return nil, fmt.Errorf("the answer reports %.128q as failed, which is no event of the batch", item.ItemIdentifier)
		}
	}
	return failed, nil
}
