package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// message is what the bench reads of an HTTP/1.1 message: the status of an answer
// and the number of the event.
type message struct {
	status  int
	event   int64 // -1 when there is none
	length  int
	chunked bool
	close   bool // the other side hangs up after it
}

var errMessage = errors.New("not a message that the bench understands")

// read reads one message, and skips its body.
func (m *message) read(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	*m = message{event: -1}
	if bytes.HasPrefix(line, []byte("HTTP/1.")) && len(line) > 12 {
		m.status = digits(line[9:12])
	}
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("in the head of a message: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if err := m.header(line); err != nil {
			return err
		}
	}
	if m.chunked {
		return skipChunks(r)
	}
	_, err = r.Discard(m.length)
	return err
}

// skipChunks skips a chunked body, which is how a long answer comes.
func skipChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return errMessage
		}
		if _, err := r.Discard(int(size) + len("\r\n")); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

// header looks at one header line. Most are told apart by their first letter and
// length alone.
func (m *message) header(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return errMessage
	}
	name, text := line[:colon], bytes.TrimSpace(line[colon+1:])
	switch colon {
	case len("ce-id"):
		if bytes.EqualFold(name, []byte("ce-id")) {
			m.event = int64(digits(text))
		}
	case len("content-length"):
		if bytes.EqualFold(name, []byte("content-length")) {
			if m.length = digits(text); m.length < 0 {
				return errMessage
			}
		}
	case len("connection"):
		if bytes.EqualFold(name, []byte("connection")) {
			m.close = bytes.EqualFold(text, []byte("close"))
		}
	case len("transfer-encoding"):
		if bytes.EqualFold(name, []byte("transfer-encoding")) {
			m.chunked = true
		}
	}
	return nil
}

// digits is a decimal number, or -1.
func digits(text []byte) int {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 1<<50 {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if len(text) == 0 {
		return -1
	}
	return n
}

// request is a request whose events can be given new numbers. It belongs to one
// connection.
type request struct {
	text []byte
	ids  []int // where the number of each event stands
}

// idDigits is the length of each event id.
const idDigits = 12

const noID = "000000000000"

// newRequest is a POST of n events of about size bytes each: in binary mode when
// n is 1, and else as a batch.
func newRequest(n, size int) *request {
	if n == 1 {
		body := payload(size)
		head := "POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nCe-Specversion: 1.0\r\nCe-Source: /bench\r\n" +
			"Ce-Type: bench.made\r\nCe-Time: 2026-01-02T15:04:05.678Z\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nCe-Id: "
		return &request{append([]byte(head+noID+"\r\n\r\n"), body...), []int{len(head)}}
	}
	var body []byte
	r, before := &request{}, byte('[')
	for range n {
		body = append(body, before)
		before = ','
		body = append(body, `{"specversion":"1.0","source":"/bench","type":"bench.made","time":"2026-01-02T15:04:05.678Z","id":"`...)
		r.ids = append(r.ids, len(body))
		body = append(body, noID+`","datacontenttype":"application/json","data":`...)
		body = append(append(body, payload(size)...), '}')
	}
	body = append(body, ']')
	r.text = []byte("POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/cloudevents-batch+json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n")
	for i := range r.ids {
		r.ids[i] += len(r.text)
	}
	r.text = append(r.text, body...)
	return r
}

// payload is a JSON object of size bytes, when size is not too small for one.
func payload(size int) []byte {
	text := []byte(`{"customer":"c-1042","amount":12.5,"items":[{"sku":"a-1","count":2}],"note":"`)
	end := `"}`
	return append(append(text, bytes.Repeat([]byte{'x'}, max(0, size-len(text)-len(end)))...), end...)
}

// number writes the numbers of the events into the request.
func (r *request) number(first int64) {
	for i, at := range r.ids {
		n := first + int64(i)
		for p := at + idDigits - 1; p >= at; p-- {
			r.text[p] = byte('0' + n%10)
			n /= 10
		}
	}
}
