package sources

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// firstRead is how much is allocated on the word of a Content-Length alone.
	firstRead = 64 << 10
	// wholeAfter is how much more than what has come is allocated on it then.
	wholeAfter = 3
)

// incoming is a request body that has to arrive in time. Without that, a few
// thousand clients that send a byte a minute hold as many connections and buffers.
type incoming struct {
	h     *handler
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	start time.Time
}

// incoming starts the clock of a request. Until read is done the connection has a
// read deadline: also for a body that is refused unread, which the server discards.
func (h *handler) incoming(w http.ResponseWriter, r *http.Request) incoming {
	in := incoming{h: h, w: w, r: r}
	if r.ContentLength != 0 {
		in.rc = http.NewResponseController(w)
		in.start = time.Now()
		in.expect(0)
	}
	return in
}

// expect sets the time by which more than received bytes have to be there: Stall
// and what MinRate allows for, and BodyTimeout at most. A ResponseWriter without
// deadlines, such as a recorder, goes without.
func (in *incoming) expect(received int) {
	l := &in.h.limits
	allowed := time.Duration(l.Stall) + time.Duration(float64(received)/float64(l.MinRate)*float64(time.Second))
	_ = in.rc.SetReadDeadline(in.start.Add(min(allowed, time.Duration(l.BodyTimeout))))
}

// tooLarge says that a limit in bytes is exceeded.
type tooLarge struct{ limit int }

func (e *tooLarge) Error() string { return fmt.Sprintf("the limit is %d bytes", e.limit) }

// errSlow is a body that did not come in time, errCut one that ended early.
var (
	errSlow = errors.New("the request did not arrive in time: send faster")
	errCut  = errors.New("the connection ended in the middle of the request")
)

// read reads the body into memory of its own, for the event to keep.
func (in *incoming) read(limit int64) ([]byte, error) {
	length := in.r.ContentLength
	switch {
	case length == 0:
		return nil, nil
	case length > limit:
		return nil, &tooLarge{int(limit)}
	}
	from := http.MaxBytesReader(in.w, in.r.Body, limit)
	var body []byte
	switch {
	case length < 0:
		body = make([]byte, 0, 4<<10)
	case length <= firstRead:
		body = make([]byte, 0, length)
	default:
		// What comes first goes into a borrowed buffer: the body gets memory of its own,
		// all of it at once, when so much of it has come.
		borrowed := in.h.firsts.Get().(*[firstRead]byte)
		defer in.h.firsts.Put(borrowed)
		body = borrowed[:0]
	}
	for int64(len(body)) != length {
		if len(body) == cap(body) {
			body = grow(body, length)
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF && (length < 0 || int64(len(body)) == length) {
			break
		}
		if err != nil {
			return nil, readFault(err)
		}
		in.expect(len(body))
	}
	// At the end of the body the server itself lifts the deadline, which must not
	// end the connection while the event is being stored.
	return body, nil
}

// grow makes room for the rest of a body of that length, or for more of one of
// unknown length when it is negative. A sender that claims a length has sent a part
// of it by then: at most wholeAfter times as much is allocated on its word.
func grow(body []byte, length int64) []byte {
	more := 3 * len(body)
	if length >= 0 {
		more = min(wholeAfter*len(body), int(length)-len(body))
	}
	return append(make([]byte, 0, len(body)+more), body...)
}

func readFault(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &tooLarge{int(large.Limit)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlow
	}
	return errCut
}
