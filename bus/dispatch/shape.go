package dispatch

import (
	"fmt"
	"slices"

	"sluice/bus"
	"sluice/rules"
	"sluice/sinks"
)

// A transform is applied at each attempt, or receive of a queue's message, with the
// rule as it is then: so a mended transform reaches what waits for a retry, and dead
// letters once they are redriven. What is stored is always the event itself.

// shapeError is why a transform has no result. Another attempt with the same event
// and rule would not have one either.
type shapeError struct{ err error }

func (e *shapeError) Error() string { return e.err.Error() }

func (e *shapeError) Unwrap() error { return e.err }

// transformsOf are the transforms of rules by name; nil when there are none.
func transformsOf(routes []Route) map[string]*rules.Transform {
	var all map[string]*rules.Transform
	for _, r := range routes {
		if r.Transform == nil {
			continue
		}
		if all == nil {
			all = map[string]*rules.Transform{}
		}
		all[r.Name] = r.Transform
	}
	return all
}

// shapes tells whether deliveries of a rule are transformed.
func (r *routing) shapes(rule string) bool { return r.transforms[rule] != nil }

// shaped tells whether a delivery goes out alone, because its rule makes something
// else of the event.
func (d *Dispatcher) shaped(dv *delivery) bool {
	return dv.shaped || d.routing.Load().shapes(dv.rule)
}

// shape is what the delivery's rule makes of the event; nil for the event itself.
// An error is a *shapeError.
func (d *Dispatcher) shape(dv *delivery) (*sinks.Payload, error) {
	table := d.routing.Load()
	t := table.transforms[dv.rule]
	if t == nil {
		gone := dv.shaped && !slices.ContainsFunc(table.routes, func(r Route) bool { return r.Name == dv.rule })
		if !gone {
			return nil, nil
		}
		// It came into being with a transform: the event as it is would be a surprise.
		return nil, &shapeError{fmt.Errorf("the rule %q is not in force any more, and its transform with it: bring it back and redrive", dv.rule)}
	}
	out, err := t.Apply(rules.TransformInput{Event: dv.event, Rule: dv.rule, Accepted: dv.accepted})
	if err != nil {
		return nil, &shapeError{fmt.Errorf("transform of rule %q: %w", dv.rule, err)}
	}
	return &sinks.Payload{
		Body: out.Body, ContentType: out.ContentType, Path: out.Path, Query: out.Query, Header: out.Header,
	}, nil
}

// message is the delivery's event as a consumer of a queue gets it: what the rule
// makes of it is the data of the same CloudEvent. An error is a *shapeError.
func (d *Dispatcher) message(dv *delivery) (bus.Event, error) {
	p, err := d.shape(dv)
	if err != nil || p == nil || p.Body == nil {
		return dv.event, err
	}
	e, err := dv.event.WithData(p.ContentType, p.Body)
	if err != nil {
		return dv.event, &shapeError{fmt.Errorf("transform of rule %q: %w", dv.rule, err)}
	}
	return e, nil
}
