package sinks

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
)

// message is a request as it goes over a connection. begin, line for each header and
// body make it whole. Request.Write of net/http wants a map of the headers and sorts
// it, which costs more than all the rest of sending them.
type message struct {
	bytes []byte
	tail  []byte // what comes behind: a body that is not worth a copy
}

// maxCopied is the longest body that is copied behind the head. A message is held
// until it is answered, and there may be as many as attempts.
const maxCopied = 4 << 10

var messages = sync.Pool{New: func() any { return new(message) }}

func newMessage() *message { return messages.Get().(*message) }

// free lets another request have the memory.
func (m *message) free() {
	if m.tail = nil; cap(m.bytes) <= 4*maxCopied {
		m.bytes = m.bytes[:0]
		messages.Put(m)
	}
}

// begin writes the first line and headers.
func (m *message) begin(req *http.Request, header http.Header) {
	m.bytes = append(append(m.bytes, req.Method...), ' ')
	m.bytes = append(append(m.bytes, req.URL.RequestURI()...), " HTTP/1.1\r\n"...)
	m.line("Host", req.Host)
	for name, values := range header {
		for _, value := range values {
			m.line(name, value)
		}
	}
}

// line writes a header.
func (m *message) line(name, value string) {
	m.bytes = append(append(m.bytes, name...), ": "...)
	at := len(m.bytes)
	m.bytes = append(m.bytes, value...)
	for _, broken := range []byte("\r\n") { // as net/http does
		for i := bytes.IndexByte(m.bytes[at:], broken); i >= 0; i = bytes.IndexByte(m.bytes[at:], broken) {
			m.bytes[at+i] = ' '
		}
	}
	m.bytes = append(m.bytes, "\r\n"...)
}

// body ends the head and adds the body.
func (m *message) body(body []byte) {
	m.bytes = append(m.bytes, "Content-Length: "...)
	m.bytes = append(strconv.AppendInt(m.bytes, int64(len(body)), 10), "\r\n\r\n"...)
	if len(body) > maxCopied {
		m.tail = body
		return
	}
	m.bytes = append(m.bytes, body...)
}
