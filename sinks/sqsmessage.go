package sinks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/bus"
	"sluice/config/aws"
)

// sqsMessage is the message of a delivery.
type sqsMessage struct {
	at    int // its place in the batch
	size  int // as SQS counts it
	entry types.SendMessageBatchRequestEntry
}

// Of the attributes of a message: how many there may be, and what their names are made
// of.
const (
	sqsAttributes = 10
	sqsLetters    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
)

// message makes the message of a delivery.
func (s *sqsSink) message(at int, d Delivery) (sqsMessage, error) {
	body, contentType, binary, err := s.body(d)
	if err != nil {
		return sqsMessage{}, err
	}
	m := sqsMessage{at: at, size: len(body), entry: types.SendMessageBatchRequestEntry{
		Id: sdk.String(strconv.Itoa(at)), MessageBody: sdk.String(string(body)), MessageAttributes: map[string]types.MessageAttributeValue{},
	}}
	set := func(name, text string) {
		if _, done := m.entry.MessageAttributes[name]; done || text == "" || len(m.entry.MessageAttributes) == sqsAttributes || sqsFault(text) != "" {
			return
		}
		m.entry.MessageAttributes[name] = types.MessageAttributeValue{DataType: sdk.String("String"), StringValue: &text}
		m.size += len(name) + len("String") + len(text)
	}
	set("content-type", contentType)
	if binary {
		for _, name := range []string{"specversion", "id", "source", "type", "subject", "time"} {
			set("ce_"+name, d.Event.Get(name))
		}
	}
	set("sluice-delivery-id", d.ID)
	if d.Payload != nil {
		for _, name := range slices.Sorted(maps.Keys(d.Payload.Header)) {
			if strings.Trim(name, sqsLetters) == "" {
				set(name, d.Payload.Header[name])
			}
		}
	}
	if binary {
		made := d.Payload != nil && d.Payload.Body != nil
		for _, a := range d.Event.Attrs() {
			if a.Name != "datacontenttype" && (!made || a.Name != "dataschema") {
				set("ce_"+a.Name, a.Value)
			}
		}
	}
	set("sluice-attempt", strconv.Itoa(d.Attempt))
	set("sluice-rule", d.Rule)
	set("sluice-sink", d.Sink)
	if s.group != nil {
		group := s.group(d.Event)
		if group == "" && s.fifo && !s.ordered {
			group = d.Event.Source()
		}
		if group != "" || s.ordered {
			m.entry.MessageGroupId = sdk.String(sqsID(group))
		}
	}
	if s.fifo {
		m.entry.MessageDeduplicationId = sdk.String(sqsID(d.ID))
	}
	if m.size > s.max {
		return m, &Error{Err: fmt.Errorf("the message has %d bytes, more than the %d of max_bytes", m.size, s.max), Status: aws.Large.Status()}
	}
	return m, nil
}

// body is the body of a message; binary says that the attributes are not in it.
func (s *sqsSink) body(d Delivery) (body []byte, contentType string, binary bool, err error) {
	if s.structured && d.Payload == nil {
		body = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
		// The two characters of JSON that SQS does not take can only be in its strings.
		for raw, escaped := range map[string]string{"\ufffe": `\ufffe`, "\uffff": `\uffff`} {
			body = bytes.ReplaceAll(body, []byte(raw), []byte(escaped))
		}
		return body, bus.TypeStructured, false, nil
	}
	body, contentType = d.Event.Data(), d.Event.Get("datacontenttype")
	if contentType == "" && d.Event.DataIsJSON() {
		contentType = "application/json"
	}
	if d.Payload != nil && d.Payload.Body != nil {
		body, contentType = d.Payload.Body, d.Payload.ContentType
	}
	switch fault := sqsFault(string(body)); {
	case len(body) == 0:
		return nil, "", true, errors.New("the event has no data, and SQS takes no empty message: write mode: structured")
	case fault != "":
		return nil, "", true, fmt.Errorf("the data %s, which SQS does not take: write mode: structured", fault)
	}
	return body, contentType, true, nil
}

// sqsFault says why a text cannot be in a message; "" when it can. SQS takes the
// characters of XML 1.0.
func sqsFault(text string) string {
	if !utf8.ValidString(text) {
		return "is no UTF-8 text"
	}
	if strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	}) {
		return "has control characters"
	}
	return ""
}

// sqsID is a text as the id of a group or of a duplicate: up to 128 letters, digits and
// punctuation marks. Others become a hash.
func sqsID(text string) string {
	if text != "" && len(text) <= 128 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// post sends messages in one request. An error is about all of them.
func (s *sqsSink) post(ctx context.Context, messages []sqsMessage, failed []error) error {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	entries := make([]types.SendMessageBatchRequestEntry, len(messages))
	for i := range messages {
		entries[i] = messages[i].entry
	}
	out, err := s.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &s.queue, Entries: entries})
	if err != nil {
		return s.verdict(ctx, err)
	}
	sent := make(map[string]bool, len(out.Successful))
	for i := range out.Successful {
		sent[sdk.ToString(out.Successful[i].Id)] = true
	}
	for i := range messages {
		if id := sdk.ToString(messages[i].entry.Id); !sent[id] {
			failed[messages[i].at] = s.entryVerdict(id, out.Failed)
		}
	}
	return nil
}

// sqsHeld is what of a call is not sent to a FIFO queue any more: it would overtake what
// failed and comes again.
type sqsHeld struct {
	all    error            // why a whole request failed: the next one would, too
	groups map[string]error // why a message failed, by its group
}

// note takes in what became of a request.
func (h *sqsHeld) note(messages []sqsMessage, failed []error, whole error) {
	if whole != nil && !permanent(whole) {
		h.all = whole
	}
	for i := range messages {
		if err := failed[messages[i].at]; err != nil && !permanent(err) {
			h.groups[sdk.ToString(messages[i].entry.MessageGroupId)] = err
		}
	}
}

// back gives those of messages that may be sent; the others get their error.
func (h *sqsHeld) back(messages []sqsMessage, failed []error) (rest []sqsMessage) {
	for i := range messages {
		err := h.all
		if err == nil {
			err = h.groups[sdk.ToString(messages[i].entry.MessageGroupId)]
		}
		if err == nil {
			rest = append(rest, messages[i])
			continue
		}
		failed[messages[i].at] = fmt.Errorf("not sent, since a message before it failed: %w", err)
	}
	return rest
}

// verdict is the error of a whole request in the terms of the bus's policy.
func (s *sqsSink) verdict(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if refused := unreachable(err); refused != err { //nolint:errorlint // whether it was changed
		return fmt.Errorf("send to %s: %w", s.name, refused)
	}
	class, explained := aws.Explain(err)
	e := &Error{Err: fmt.Errorf("send to %s: %w", s.name, explained), Status: class.Status()}
	e.Permanent = class == aws.Large || class == aws.Invalid
	return e
}

// sqsEntryError is what the server says of one message.
type sqsEntryError struct{ text string }

func (e *sqsEntryError) Error() string { return e.text }

// entryVerdict is the error of one message of a request that went well.
func (s *sqsSink) entryVerdict(id string, failed []types.BatchResultErrorEntry) error {
	for i := range failed {
		f := &failed[i]
		if sdk.ToString(f.Id) != id {
			continue
		}
		code := sdk.ToString(f.Code)
		class, advice := aws.Code(code)
		if class == aws.Invalid && !f.SenderFault {
			class = aws.Outage
		}
		if advice != "" {
			advice = " (" + advice + ")"
		}
		return &Error{
			Err:       &sqsEntryError{fmt.Sprintf("send to %s: %s: %s%s", s.name, code, shorten(sdk.ToString(f.Message)), advice)},
			Status:    class.Status(),
			Permanent: class == aws.Large || class == aws.Invalid,
		}
	}
	return fmt.Errorf("send to %s: the answer says nothing about the message", s.name)
}

// shorten keeps the start of what a far side says.
func shorten(text string) string {
	if len(text) > maxTrouble {
		text = text[:maxTrouble] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
