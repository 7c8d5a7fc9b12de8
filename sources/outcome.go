package sources

// Outcome is what became of an event at the door of a source: a closed set, fit
// for a metric's label.
type Outcome string

// The outcomes.
const (
	Accepted    Outcome = "accepted"    // durable
	Repeated    Outcome = "repeated"    // durable since it came before; not stored again
	Invalid     Outcome = "invalid"     // not a valid CloudEvent
	Unsupported Outcome = "unsupported" // in a form that is not understood
	Denied      Outcome = "denied"      // from a sender that did not prove who it is
	Limited     Outcome = "limited"     // over the rate of the sender
	TooLarge    Outcome = "too_large"   // over a limit
	Slow        Outcome = "slow"        // did not arrive in time
	Aborted     Outcome = "aborted"     // the sender went away first; the event may be stored
	Overloaded  Outcome = "overloaded"  // the bus does not take more at this moment
	Full        Outcome = "full"        // the store has no room
	Unavailable Outcome = "unavailable" // the store does not answer; the event may be stored
	Closed      Outcome = "closed"      // the bus or the source is shutting down
)

// Outcomes lists every Outcome.
func Outcomes() []Outcome {
	return []Outcome{Accepted, Repeated, Invalid, Unsupported, Denied, Limited, TooLarge, Slow, Aborted, Overloaded, Full, Unavailable, Closed}
}
