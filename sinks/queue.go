package sinks

import (
	"context"
	"errors"
	"time"

	"sluice/config/value"
)

// Queue are the settings of the queue sink: its deliveries wait in the bus until
// consumers fetch them.
type Queue struct {
	Visibility  value.Duration `yaml:"visibility" doc:"How long a consumer has a message before others see it again, unless it asks for another time."`
	MaxReceives int            `yaml:"max_receives" doc:"How often a message is received without being acknowledged until it becomes a dead letter; 0 for without end."`
	Delay       value.Duration `yaml:"delay" doc:"How long after it was accepted a message is not seen yet. The attribute delayseconds of an event overrides it."`
	Retention   value.Duration `yaml:"retention" doc:"A message older than this becomes a dead letter when its next receive fails; 0 for without end."`
}

// The limits of a queue's times.
const (
	maxVisibility = 12 * time.Hour
	maxDelay      = 7 * 24 * time.Hour
)

// NewQueue returns the settings with their defaults.
func NewQueue() *Queue { return &Queue{Visibility: value.Duration(30 * time.Second), MaxReceives: 5} }

// Validate is Settings.Validate.
func (s *Queue) Validate() value.Faults {
	var faults value.Faults
	if v := time.Duration(s.Visibility); v < time.Second || v > maxVisibility {
		faults.Add("visibility", "must be from 1s to 12h")
	}
	if s.MaxReceives < 0 {
		faults.Add("max_receives", "is negative: write how often a message may be received, or 0 for without end")
	}
	if d := time.Duration(s.Delay); d < 0 || d > maxDelay {
		faults.Add("delay", "must be from 0 to 168h")
	}
	if s.Retention < 0 {
		faults.Add("retention", "is negative: write how long a message is kept, or 0 for without end")
	}
	return faults
}

// Pull says how a Puller is fetched from.
type Pull struct {
	Visibility  time.Duration
	MaxReceives int // 0: without end
	Delay       time.Duration
	Retention   time.Duration // 0: without end
}

// Puller is a sink that nothing is sent to: consumers fetch its deliveries from the
// bus, which keeps them.
type Puller interface {
	Sink
	Pull() Pull
}

// Open is Settings.Open.
func (s *Queue) Open(context.Context, Env) (Sink, error) {
	return &queueSink{Pull{
		Visibility: time.Duration(s.Visibility), MaxReceives: s.MaxReceives, Delay: time.Duration(s.Delay), Retention: time.Duration(s.Retention),
	}}, nil
}

type queueSink struct{ pull Pull }

// Pull is Puller.Pull.
func (s *queueSink) Pull() Pull { return s.pull }

// Deliver is Sink.Deliver. The bus never calls it.
func (s *queueSink) Deliver(context.Context, Delivery) error {
	return errors.New("a queue is not delivered to: consumers fetch from it")
}
