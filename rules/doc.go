// Package rules decides which rules an event matches.
//
// A pattern is written in the EventBridge pattern language: a JSON object
// that names fields, each with an array of acceptable values or operators.
// [ParsePattern] reads one, [Compile] turns any number of them into an
// immutable [Set], and [Set.Match] reports every rule that a document matches
// in one pass over its bytes, without allocating. [Set.MatchEvent] does the
// same for a CloudEvent without first encoding it. [Explain] says, key by key,
// why a pattern matched or did not.
//
// [Contradiction], [Equal] and [Covers] judge patterns without an event, and
// [Redundancies] finds the rules of a set that others make needless.
//
// The answers are those of AWS's own engine (event-ruler 2.0), with these
// deliberate differences:
//
//   - A key outside and inside $or must hold in both places; there the later
//     one silently replaces the earlier one.
//   - $or that is not an array of at least two objects is an error; there some
//     forms become a field called "$or".
//   - cidr accepts /32 and /128, looks at IP addresses only (there, a short
//     prefix length takes other texts too), and an IPv4 address never matches
//     an IPv6 block, mapped or not.
//   - Truncated documents and trailing garbage are errors, never a match.
//   - Duplicate keys in a pattern are an error.
//   - equals-ignore-case compares characters outside the basic plane as they
//     are; there they become question marks.
//   - wildcard beside equals-ignore-case in one array means either of them,
//     inside anything-but too; there, the two together can match any string,
//     or none.
//   - An empty key is a step of a path like any other; there it vanishes.
//
// Beside the patterns stand where.go, an expression in CloudEvents SQL that is
// asked once a pattern has matched, and transform.go, which makes a payload of an
// event. What none of them does: keep state between events, or look into data
// that is not JSON.
//
// # How matching stays flat
//
// A set has one trie of the paths its rules use, and the scanner walks the
// document along it, skipping whatever no rule asks about. Each path has an
// index per operator. A rule is registered under its most selective condition
// only; when that condition is met, the others are checked, each distinct one
// at most once per event. Rules whose conditions could meet under one array
// are then checked again for the same element. So the cost of an event grows
// with the rules that match or nearly match, not with the rules there are.
package rules
