package app

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/config/value"
	"sluice/sinks"
)

// authOf is the proof that a sinkcredential of the CloudEvents Subscriptions API
// stands for (section 3.2.3); nil for none.
func authOf(c *api.SinkCredential) (*sinks.HTTPAuth, error) {
	if c == nil {
		return nil, nil
	}
	switch c.Type {
	case api.CredentialToken:
		return bearerOf(c)
	case api.CredentialPlain:
		return basicOf(c)
	case api.CredentialRefresh:
		return nil, errors.New("sinkcredential.credentialtype: REFRESHTOKEN is not supported: tokens are not renewed here; send an ACCESSTOKEN, and PUT the subscription with the next one before it expires")
	}
	if c.Type == "" {
		return nil, errors.New("sinkcredential.credentialtype: is missing: write PLAIN or ACCESSTOKEN")
	}
	return nil, fmt.Errorf("sinkcredential.credentialtype: %.64q is not supported: write PLAIN with identifier and secret, or ACCESSTOKEN with accesstoken, accesstokenexpiresutc and accesstokentype", c.Type)
}

func bearerOf(c *api.SinkCredential) (*sinks.HTTPAuth, error) {
	if c.RefreshToken+c.RefreshTokenEndpoint+c.Identifier+c.Secret != "" {
		return nil, errors.New("sinkcredential: an ACCESSTOKEN has accesstoken, accesstokenexpiresutc and accesstokentype, and nothing else")
	}
	if c.AccessToken == "" {
		return nil, errors.New("sinkcredential.accesstoken: is missing")
	}
	// The names of token types know no case (RFC 6749, section 7.1).
	if c.AccessTokenType != "" && !strings.EqualFold(c.AccessTokenType, "bearer") {
		return nil, fmt.Errorf("sinkcredential.accesstokentype: %.64q is not supported: write bearer", c.AccessTokenType)
	}
	return &sinks.HTTPAuth{Bearer: value.NewSecret(c.AccessToken)}, nil
}

func basicOf(c *api.SinkCredential) (*sinks.HTTPAuth, error) {
	if c.AccessToken+c.AccessTokenType+c.RefreshToken+c.RefreshTokenEndpoint != "" || !c.AccessTokenExpires.IsZero() {
		return nil, errors.New("sinkcredential: a PLAIN one has identifier and secret, and nothing else")
	}
	switch {
	case c.Identifier == "" || strings.Contains(c.Identifier, ":"):
		return nil, errors.New("sinkcredential.identifier: must be a name without a colon")
	case c.Secret == "":
		return nil, errors.New("sinkcredential.secret: is missing")
	}
	return &sinks.HTTPAuth{Basic: &sinks.HTTPBasic{User: c.Identifier, Password: value.NewSecret(c.Secret)}}, nil
}

// keepCredential gives a subscription the credential of the one that it replaces: that
// is shown to nobody, so who changes what he was shown has nothing to send. The secret
// goes to the sink that it was given for and to no other: whoever may subscribe could
// have it sent to himself.
func keepCredential(doc *api.Subscription, old *subscription) error {
	if !doc.KeepCredential || old == nil || old.doc.Credential == nil {
		return nil
	}
	if doc.Sink != old.doc.Sink {
		return errors.New("sinkcredential: is missing: the one that is kept was given for another sink; send the one of this sink, or null for none")
	}
	doc.Credential = old.doc.Credential
	return nil
}

// checkFresh refuses what can no longer be right when a caller sends it. What was right
// then is used as long as the far side takes it.
func checkFresh(doc api.Subscription, now time.Time) error {
	if c := doc.Credential; c != nil && !c.AccessTokenExpires.IsZero() && !c.AccessTokenExpires.After(now) {
		return fmt.Errorf("sinkcredential.accesstokenexpiresutc: %s is over: send a token that is still good", c.AccessTokenExpires.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkConfig refuses settings of the bus's own for how events are made: there are none.
func checkConfig(doc api.Subscription) error {
	if len(doc.Config) == 0 {
		return nil
	}
	name := slices.Sorted(maps.Keys(doc.Config))[0]
	return fmt.Errorf("config: %.64q is not a setting of this bus, which has none here: leave it out", name)
}
