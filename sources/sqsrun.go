package sources

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/bus"
	"sluice/config/aws"
)

// How long things may take.
const (
	sqsPatience = 10 * time.Second // for an answer, beside what a request waits for messages
	sqsGrace    = 10 * time.Second // for what is in hand to finish when the source stops
	sqsMeasure  = 10 * time.Second // between two looks at how many messages wait
	sqsIdle     = time.Second      // between requests to a queue that does not wait for messages itself
	sqsMaxPause = 10 * time.Second // between attempts to reach the queue
)

// sqsRun is one Run. Its workers are alike: each receives up to ten messages,
// publishes them, deletes them and begins anew. While messages come there are more
// and more of them, up to the bounds; while none come, one waits. The messages of a
// FIFO group keep their order all the same: the queue gives no more of a group while
// some of it are in hand.
type sqsRun struct {
	source *sqsSource
	feed   feed
	fail   context.CancelCauseFunc // ends the run
	staff  sync.WaitGroup

	mu       sync.Mutex
	workers  int
	bytes    int64
	held     map[string]*sqsHeld // by receipt handle
	troubled bool                // an error of the queue is reported
}

// sqsHeld is a message in hand.
type sqsHeld struct {
	size  int64
	until time.Time // when others see it again
}

// run returns when ctx has ended and nothing is in hand any more.
func (r *sqsRun) run(ctx context.Context) {
	// What is in hand when ctx ends gets some more time.
	flight, land := context.WithCancel(context.WithoutCancel(ctx))
	defer land()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(sqsGrace, land) })
	defer stop()
	aside, quiet := context.WithCancel(context.WithoutCancel(ctx))
	var side sync.WaitGroup
	beside(&side, r.fail, func() { r.extend(aside) })
	beside(&side, r.fail, func() { r.measure(ctx) })
	r.hire(ctx, flight)
	r.staff.Wait()
	quiet()
	side.Wait()
}

// hire adds a worker where the bounds allow it.
func (r *sqsRun) hire(ctx, flight context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.source.settings
	if ctx.Err() == nil && (r.workers+1)*sqsBatch <= set.MaxInFlight && r.bytes < int64(set.MaxBytes) {
		r.workers++
		beside(&r.staff, r.fail, func() { r.work(ctx, flight) })
	}
}

// leave tells whether a worker may go: the last may not.
func (r *sqsRun) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.workers == 1 {
		return false
	}
	r.workers--
	return true
}

func (r *sqsRun) work(ctx, flight context.Context) {
	for wait := feedFirst; ctx.Err() == nil; {
		began := time.Now()
		messages, err := r.receive(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			if !r.trouble("receive", err) || r.leave() || pause(ctx, wait) != nil {
				return
			}
			wait = min(2*wait, sqsMaxPause)
			continue
		case len(messages) == 0:
			if r.calm(); r.leave() {
				return
			}
			if time.Since(began) < sqsIdle/2 {
				_ = pause(ctx, sqsIdle) // the loop sees that ctx ended
			}
			continue
		}
		wait = feedFirst
		r.calm()
		r.hire(ctx, flight)
		full, err := r.take(flight, messages)
		if err != nil || full && r.leave() {
			return
		}
	}
}

// trouble deals with an error of the queue. It returns false, and ends the run, when
// only a person can mend it.
func (r *sqsRun) trouble(what string, err error) bool {
	class, explained := aws.Explain(err)
	err = fmt.Errorf("cannot %s messages of %s: %w", what, r.source.mapping.queue, explained)
	switch class {
	case aws.Login, aws.Denied, aws.Unknown, aws.Invalid:
		r.fail(err)
		return false
	case aws.Outage, aws.Busy, aws.Large:
	}
	r.mu.Lock()
	first := !r.troubled
	r.troubled = true
	r.mu.Unlock()
	if first {
		r.source.env.Log.Warn("the queue has trouble and is tried again", "err", err)
	}
	r.source.env.report(err)
	return true
}

// calm ends the trouble.
func (r *sqsRun) calm() {
	r.mu.Lock()
	over := r.troubled
	r.troubled = false
	r.mu.Unlock()
	if over {
		r.source.env.report(nil)
	}
}

// receive waits for messages, for a while.
func (r *sqsRun) receive(ctx context.Context) ([]types.Message, error) {
	set := r.source.settings
	wait, visibility := time.Duration(set.Wait), time.Duration(set.Visibility)
	ctx, cancel := context.WithTimeout(ctx, wait+sqsPatience)
	defer cancel()
	out, err := r.source.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &r.source.queue, MaxNumberOfMessages: sqsBatch,
		WaitTimeSeconds: int32(wait / time.Second), VisibilityTimeout: int32(visibility / time.Second),
		MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameSentTimestamp, types.MessageSystemAttributeNameMessageGroupId,
			types.MessageSystemAttributeNameSequenceNumber,
		},
	})
	if err != nil {
		return nil, err
	}
	until, oldest := time.Now().Add(visibility), int64(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range out.Messages {
		m := &out.Messages[i]
		h, handle := &sqsHeld{int64(len(sdk.ToString(m.Body))), until}, sdk.ToString(m.ReceiptHandle)
		if twice := r.held[handle]; twice != nil { // which no queue should do
			r.bytes -= twice.size
		}
		r.held[handle] = h
		r.bytes += h.size
		if sent := sqsTime(m).UnixMilli(); oldest == 0 || sent < oldest {
			oldest = sent
		}
	}
	r.source.oldest.Store(oldest)
	return out.Messages, nil
}

// take makes messages durable and deletes them. It tells whether enough were in hand
// meanwhile. An error means that ctx or the run has ended.
func (r *sqsRun) take(ctx context.Context, messages []types.Message) (full bool, err error) {
	defer func() { full = r.drop(messages) }()
	events := make([]bus.Event, 0, len(messages))
	var poison []Rejected
	for i := range messages {
		e, err := r.source.mapping.event(&messages[i])
		if err != nil {
			poison = append(poison, r.source.mapping.reject(&messages[i], err))
			continue
		}
		events = append(events, e)
	}
	err = r.feed.publish(ctx, events...)
	for i := 0; i < len(poison) && err == nil; i++ {
		err = r.feed.reject(ctx, poison[i])
	}
	if err != nil {
		r.giveBack(messages)
		return false, err
	}
	return false, r.remove(ctx, messages)
}

// drop forgets messages that are not in hand any more.
func (r *sqsRun) drop(messages []types.Message) (full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full = r.bytes >= int64(r.source.settings.MaxBytes)
	for i := range messages {
		handle := sdk.ToString(messages[i].ReceiptHandle)
		if h := r.held[handle]; h != nil {
			r.bytes -= h.size
			delete(r.held, handle)
		}
	}
	return full
}

// remove deletes messages. Until they are deleted nothing more is received by this
// worker: so a queue that does not delete is not published over and over.
func (r *sqsRun) remove(ctx context.Context, messages []types.Message) error {
	entries := make([]types.DeleteMessageBatchRequestEntry, len(messages))
	for i := range messages {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: sdk.String(strconv.Itoa(i)), ReceiptHandle: messages[i].ReceiptHandle}
	}
	for wait := feedFirst; ; wait = min(2*wait, sqsMaxPause) {
		once, cancel := context.WithTimeout(ctx, sqsPatience)
		out, err := r.source.client.DeleteMessageBatch(once, &sqs.DeleteMessageBatchInput{QueueUrl: &r.source.queue, Entries: entries})
		cancel()
		if err == nil {
			if entries, err = r.undeleted(entries, out.Failed); err == nil {
				r.calm()
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !r.trouble("delete", err) {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// undeleted are the entries to try again, with the error of one of them.
func (r *sqsRun) undeleted(entries []types.DeleteMessageBatchRequestEntry, failed []types.BatchResultErrorEntry) (again []types.DeleteMessageBatchRequestEntry, err error) {
	for i := range failed {
		f := &failed[i]
		cause := fmt.Errorf("%s: %s", sdk.ToString(f.Code), sdk.ToString(f.Message))
		if class, _ := aws.Code(sdk.ToString(f.Code)); f.SenderFault && class == aws.Invalid {
			// Its time was over; whoever has it now deletes it.
			r.source.env.Log.Warn("a message was in hand for too long and comes again, with the same id", "err", cause)
			continue
		}
		for _, entry := range entries {
			if sdk.ToString(entry.Id) == sdk.ToString(f.Id) {
				again, err = append(again, entry), cause
			}
		}
	}
	return again, err
}

// giveBack lets others see messages at once that were not published.
func (r *sqsRun) giveBack(messages []types.Message) {
	handles := make([]string, len(messages))
	for i := range messages {
		handles[i] = sdk.ToString(messages[i].ReceiptHandle)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sqsPatience/2)
	defer cancel()
	if _, err := r.hide(ctx, handles, 0); err != nil {
		r.source.env.Log.Debug("messages could not be given back; they come again once their visibility is over", "err", err)
	}
}

// extend keeps what is in hand from others for as long as that takes.
func (r *sqsRun) extend(ctx context.Context) {
	visibility := time.Duration(r.source.settings.Visibility)
	ticker := time.NewTicker(visibility / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		due := r.due(time.Now().Add(2 * visibility / 3))
		for len(due) > 0 && ctx.Err() == nil {
			n := min(sqsBatch, len(due))
			r.extendSome(ctx, due[:n], visibility)
			due = due[n:]
		}
	}
}

// due are the messages that others would see before at.
func (r *sqsRun) due(at time.Time) (handles []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for handle, h := range r.held {
		if h.until.Before(at) {
			handles = append(handles, handle)
		}
	}
	return handles
}

func (r *sqsRun) extendSome(ctx context.Context, handles []string, visibility time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, min(sqsPatience, visibility/2))
	defer cancel()
	until := time.Now().Add(visibility)
	failed, err := r.hide(ctx, handles, visibility)
	if err != nil {
		if ctx.Err() == nil {
			_ = r.trouble("extend the visibility of", err)
		}
		return // the next tick tries it again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, handle := range handles {
		// One that failed has been deleted meanwhile, or is in other hands.
		if h := r.held[handle]; h != nil && !failed[strconv.Itoa(i)] {
			h.until = until
		}
	}
}

// hide sets for how long others do not see messages, and returns the places of those
// where that failed.
func (r *sqsRun) hide(ctx context.Context, handles []string, visibility time.Duration) (failed map[string]bool, err error) {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(handles))
	for i := range handles {
		entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: sdk.String(strconv.Itoa(i)), ReceiptHandle: &handles[i], VisibilityTimeout: int32(visibility / time.Second),
		}
	}
	out, err := r.source.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &r.source.queue, Entries: entries})
	if err != nil {
		return nil, err
	}
	failed = map[string]bool{}
	for i := range out.Failed {
		failed[sdk.ToString(out.Failed[i].Id)] = true
		r.source.env.Log.Debug("the visibility of a message could not be changed", "code", sdk.ToString(out.Failed[i].Code))
	}
	return failed, nil
}

// measure asks now and then how many messages wait. Who may not ask knows no lag.
func (r *sqsRun) measure(ctx context.Context) {
	ticker := time.NewTicker(sqsMeasure)
	defer ticker.Stop()
	const name = types.QueueAttributeNameApproximateNumberOfMessages
	for {
		once, cancel := context.WithTimeout(ctx, sqsPatience)
		out, err := r.source.client.GetQueueAttributes(once, &sqs.GetQueueAttributesInput{
			QueueUrl: &r.source.queue, AttributeNames: []types.QueueAttributeName{name},
		})
		cancel()
		waiting := int64(-1)
		if err == nil {
			if n, bad := strconv.ParseInt(out.Attributes[string(name)], 10, 64); bad == nil && n >= 0 {
				waiting = n
			}
		} else if ctx.Err() == nil {
			r.source.env.Log.Debug("how many messages wait is not known", "err", err)
		}
		r.source.waiting.Store(waiting + 1)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
