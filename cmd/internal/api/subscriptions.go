package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"sluice/bus/dispatch"
	"sluice/config/value"
	"sluice/rules"
)

// The CloudEvents Subscriptions API (v1.0 working draft): whoever may call can
// subscribe a function to events, without a change of the config.

// SubscriptionControl makes subscriptions, and ends them.
type SubscriptionControl interface {
	// Subscriptions lists them by id.
	Subscriptions() []Subscription
	// Subscribe makes one, or replaces the one with that id. It is durable and in
	// force when it returns. What is wrong with it is a *BadSubscription.
	Subscribe(ctx context.Context, s Subscription) (Subscription, error)
	// Unsubscribe and RenewSubscription fail with bus.ErrNotFound for one that there
	// is not.
	Unsubscribe(ctx context.Context, id string) error
	// RenewSubscription lets one live for as long again, or, when expires is not 0, for
	// that long from now on.
	RenewSubscription(ctx context.Context, id string, expires value.Duration) error
}

// QueueSink as the sink of a subscription makes a queue of it: events wait until
// they are fetched from the queue sub.<id>.
const QueueSink = "queue:"

// ProtocolHTTP is the one protocol that a sink is spoken to by.
const ProtocolHTTP = "HTTP"

// Subscription is one subscription, in the form of the CloudEvents Subscriptions
// API. Match, Replies, Expires and what is in answers only are ours.
type Subscription struct {
	ID               string                     `json:"id,omitempty"`
	Source           string                     `json:"source,omitempty"` // of the events
	Types            []string                   `json:"types,omitempty"`  // of the events
	Config           map[string]json.RawMessage `json:"config,omitempty"` // how events are made: nothing can be said here
	Filters          []json.RawMessage          `json:"filters,omitempty"`
	Match            json.RawMessage            `json:"match,omitempty"` // an event pattern, as in a rule
	Sink             string                     `json:"sink"`            // a URL, or QueueSink
	Protocol         string                     `json:"protocol,omitempty"`
	ProtocolSettings *ProtocolSettings          `json:"protocolsettings,omitempty"`
	Credential       *SinkCredential            `json:"sinkcredential,omitempty"` // never shown
	Replies          string                     `json:"replies,omitempty"`        // what becomes of events that the sink answers with: publish or ignore
	Expires          value.Duration             `json:"expires,omitzero"`         // it ends when it is not renewed for so long

	Error             string    `json:"error,omitempty"`            // in answers: why it cannot be used any more and gets nothing
	CredentialExpires time.Time `json:"credentialexpires,omitzero"` // in answers: until when the token of Credential is good

	// KeepCredential says that the credential of the subscription that this one
	// replaces stays: the caller sent none.
	KeepCredential bool `json:"-"`
}

// ProtocolSettings say how the sink is spoken to.
type ProtocolSettings struct {
	Method  string            `json:"method,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// The types of SinkCredential.
const (
	CredentialToken   = "ACCESSTOKEN"
	CredentialPlain   = "PLAIN"
	CredentialRefresh = "REFRESHTOKEN" // known, to say that it is not taken
)

// SinkCredential is what the sink wants to see.
type SinkCredential struct {
	Type                 string    `json:"credentialtype"`
	Identifier           string    `json:"identifier,omitempty"`
	Secret               string    `json:"secret,omitempty"`
	AccessToken          string    `json:"accesstoken,omitempty"`
	AccessTokenExpires   time.Time `json:"accesstokenexpiresutc,omitzero"`
	AccessTokenType      string    `json:"accesstokentype,omitempty"`
	RefreshToken         string    `json:"refreshtoken,omitempty"`
	RefreshTokenEndpoint string    `json:"refreshtokenendpoint,omitempty"`
}

// Shown is the subscription without its secret.
func (s Subscription) Shown() Subscription {
	s.CredentialExpires = time.Time{}
	if s.Credential != nil {
		s.CredentialExpires = s.Credential.AccessTokenExpires
	}
	s.Credential = nil
	if s.Protocol == "" && s.Sink != "" && s.Sink != QueueSink {
		s.Protocol = ProtocolHTTP
	}
	return s
}

// BadSubscription is a subscription that cannot be made as it is.
type BadSubscription struct{ Err error }

func (e *BadSubscription) Error() string { return e.Err.Error() }

func (e *BadSubscription) Unwrap() error { return e.Err }

func (a *api) listSubscriptions(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, a.Subscriptions.Subscriptions())
}

func (a *api) showSubscription(w http.ResponseWriter, r *http.Request) error {
	for _, s := range a.Subscriptions.Subscriptions() {
		if s.ID == r.PathValue("id") {
			return writeJSON(w, http.StatusOK, s)
		}
	}
	return noSubscription(r)
}

func noSubscription(r *http.Request) error {
	return refuse(http.StatusNotFound, "there is no subscription %q: GET /subscriptions lists them", r.PathValue("id"))
}

// validSubscriptionID is what a caller may call a subscription: it is a part of URLs,
// metrics and keys.
var validSubscriptionID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$`)

// readSubscription reads the subscription of a body. A credential that it leaves out is
// another thing than one that is null.
func readSubscription(w http.ResponseWriter, r *http.Request) (Subscription, error) {
	var body struct {
		Subscription
		Credential json.RawMessage `json:"sinkcredential"` // hides the other
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return Subscription{}, err
	}
	s := body.Subscription
	if s.KeepCredential = body.Credential == nil; s.KeepCredential {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(body.Credential))
	d.DisallowUnknownFields()
	err := d.Decode(&s.Credential)
	var noTime *time.ParseError
	switch {
	case errors.As(err, &noTime):
		return s, refuse(http.StatusBadRequest, "sinkcredential.accesstokenexpiresutc: is no time: write one such as 2026-01-02T15:04:05Z")
	case err != nil:
		return s, refuse(http.StatusBadRequest, "sinkcredential: %s", jsonFault(err))
	}
	return s, nil
}

// subscriptionFeatures tells what can be done with subscriptions.
func (a *api) subscriptionFeatures(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Allow", strings.Join(a.methodsOf(r), ", "))
	return writeJSON(w, http.StatusOK, map[string][]string{
		"protocols": {ProtocolHTTP}, "filters": rules.FilterDialects(), "credentialtypes": {CredentialPlain, CredentialToken},
	})
}

func (a *api) subscribe(w http.ResponseWriter, r *http.Request) error {
	s, err := readSubscription(w, r)
	if err != nil {
		return err
	}
	s.ID = "" // it is chosen here: PUT says which
	made, err := a.putSubscription(r, s)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/subscriptions/"+made.ID)
	return writeJSON(w, http.StatusCreated, made)
}

func (a *api) replaceSubscription(w http.ResponseWriter, r *http.Request) error {
	s, err := readSubscription(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if s.ID != "" && s.ID != id {
		return refuse(http.StatusBadRequest, "id: %q is not that of the URL: leave it out", s.ID)
	}
	if !validSubscriptionID.MatchString(id) {
		return refuse(http.StatusBadRequest, "id: %.64q is not 1 to 48 letters, digits, _ or -, beginning with a letter or digit", id)
	}
	s.ID = id
	made, err := a.putSubscription(r, s)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, made)
}

func (a *api) putSubscription(r *http.Request, s Subscription) (Subscription, error) {
	if s.Sink == "" {
		return s, refuse(http.StatusBadRequest, "sink: is missing: write the URL that events are POSTed to, or %s to fetch them", QueueSink)
	}
	if err := a.chooseReplies(r, &s); err != nil {
		return s, err
	}
	s.Error, s.CredentialExpires = "", time.Time{} // of the one that this replaces
	made, err := a.Subscriptions.Subscribe(r.Context(), s)
	var bad *BadSubscription
	if errors.As(err, &bad) {
		return s, refuse(http.StatusBadRequest, "%s", bad)
	}
	return made, err
}

// chooseReplies lets the answers of a subscriber onto the bus when the caller could
// publish them too: a function that subscribes itself says what its answers are.
func (a *api) chooseReplies(r *http.Request, s *Subscription) error {
	may := a.View().Tokens.Allows(r, Publish)
	switch s.Replies {
	case "":
		if s.Replies = dispatch.RepliesIgnored; may {
			s.Replies = dispatch.RepliesPublished
		}
	case dispatch.RepliesIgnored:
	case dispatch.RepliesPublished:
		if !may {
			return refuse(http.StatusForbidden, "replies: publish needs a token with the scope publish and no paths: use one, or leave replies out, and answers are ignored")
		}
	default:
		return refuse(http.StatusBadRequest, "replies: %.64q is neither %s nor %s", s.Replies, dispatch.RepliesPublished, dispatch.RepliesIgnored)
	}
	return nil
}

func (a *api) unsubscribe(w http.ResponseWriter, r *http.Request) error {
	if err := a.Subscriptions.Unsubscribe(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// renewSubscription lets a subscription that expires live for as long again, or for as
// long as the body says.
func (a *api) renewSubscription(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Expires *value.Duration `json:"expires"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	var expires value.Duration
	if body.Expires != nil {
		if expires = *body.Expires; expires <= 0 {
			return refuse(http.StatusBadRequest, `expires: %s is no time to live: write one such as "1h", or leave it out for as long as before`, expires)
		}
	}
	err := a.Subscriptions.RenewSubscription(r.Context(), r.PathValue("id"), expires)
	var bad *BadSubscription
	if errors.As(err, &bad) {
		return refuse(http.StatusConflict, "%s", bad)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
