package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// asConsumer is the variable with the address of a bus that makes the test binary a
// consumer: it sends the requests that it reads, and prints what is answered.
const asConsumer = "SLUICE_TEST_AS_CONSUMER"

// consumerRequest and consumerAnswer are a line each.
type consumerRequest struct {
	Path string
	Body json.RawMessage
}

type consumerAnswer struct {
	Error  string
	Answer json.RawMessage
}

// consumeFor is the main function of such a process.
func consumeFor(base string) error {
	q := newQueueUsers(&program{base: base}, 1, 0, 0)
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var request consumerRequest
		if err := in.Decode(&request); err != nil {
			return err // io.EOF: the test is over
		}
		var answer consumerAnswer
		if err := q.post(request.Path, request.Body, &answer.Answer); err != nil {
			answer.Error = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
}

// consumerProcess is a consumer that can be killed.
type consumerProcess struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	once sync.Once
}

func startConsumer(p *program) (*consumerProcess, error) {
	c := &consumerProcess{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), asConsumer+"="+p.base)
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.out = in, bufio.NewReader(out)
	return c, c.cmd.Start()
}

// post is queueUsers.post by the process. Once that is killed nobody knows whether the
// request was answered.
func (c *consumerProcess) post(path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.in).Encode(consumerRequest{path, text}); err != nil {
		return err
	}
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	var answer consumerAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Answer, into)
}

// kill ends the process by SIGKILL, and waits until it is gone.
func (c *consumerProcess) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
}

// consumeAndDie consumes by one process after the other, until ctx ends. One of four
// rounds is the last of its process: it dies with messages in hand, or while its ack
// is on its way.
func (q *queueUsers) consumeAndDie(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := startConsumer(q.p)
		if err != nil {
			q.p.t.Error(err)
			return
		}
		for alive := true; alive && ctx.Err() == nil; {
			got := q.receive(c.post)
			if len(got.Messages) == 0 {
				continue
			}
			switch rand.IntN(8) {
			case 0:
				alive = false
			case 1:
				alive = false
				death := time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, c.kill)
				q.ack(c.post, got)
				death.Stop()
			default:
				q.ack(c.post, got)
			}
			if !alive {
				q.mu.Lock()
				q.tally.killed++
				q.mu.Unlock()
			}
		}
		c.kill()
	}
}

// cut begins so many receives, and resets the connection of each in the middle: while
// it waits for a message, or while the answer is on its way.
func (q *queueUsers) cut(ctx context.Context, times int) {
	body := fmt.Sprintf(`{"max":10,"wait":"5s","visibility":%q}`, q.visibility)
	request := fmt.Sprintf("POST /api/v1/queues/q/receive HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	address := strings.TrimPrefix(q.p.base, "http://")
	for range times {
		<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			continue // it is being started again
		}
		_, _ = io.WriteString(conn, request)
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(40)) * time.Millisecond))
		n, _ := conn.Read(make([]byte, 16)) // of the head: the messages are not read
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
		q.mu.Lock()
		if q.tally.cut++; n == 0 {
			q.tally.cutWaiting++
		}
		q.mu.Unlock()
	}
}

// ended is how many messages of the queue the bus says were acknowledged since its start.
func (q *queueUsers) ended() int {
	var all struct {
		Sinks []struct {
			Name      string
			Delivered int
		}
	}
	q.p.get("/api/v1/sinks", &all)
	for _, s := range all.Sinks {
		if s.Name == "q" {
			return s.Delivered
		}
	}
	q.p.t.Fatal("the bus has no queue q")
	return 0
}
