package sources

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/config/value"
)

// Verify says how the senders of a webhook source prove who they are: one of its
// keys, or None.
type Verify struct {
	None     bool          `yaml:"-"` // "verify: none": everybody, on purpose
	GitHub   value.Secrets `yaml:"github" doc:"GitHub: the secret of the webhook. Events are com.github.<event>.<action> of https://github.com/<owner>/<repository>, with the delivery's id."`
	GitLab   value.Secrets `yaml:"gitlab" doc:"GitLab: the signing token (whsec_…), or the older secret token. Events are com.gitlab.<kind>.<action> of the project's URL."`
	Stripe   value.Secrets `yaml:"stripe" doc:"Stripe: the signing secret of the endpoint (whsec_…). Events are com.stripe.<type>, with the id evt_…"`
	Slack    value.Secrets `yaml:"slack" doc:"Slack: the signing secret of the app. The URL challenge is answered. Events are com.slack.<type> of https://slack.com/<team>."`
	Shopify  value.Secrets `yaml:"shopify" doc:"Shopify: the client secret of the app. Events are com.shopify.<topic> of https://<shop domain>."`
	Twilio   *Twilio       `yaml:"twilio" doc:"Twilio: forms are kept as they came. Events are com.twilio.message.<status>, com.twilio.call.<status> or com.twilio."`
	Standard value.Secrets `yaml:"standard" doc:"Standard Webhooks and Svix: secrets (whsec_…) for v1, public keys (whpk_…) for v1a. Events have the type in the body and the webhook-id."`
	HMAC     *HMAC         `yaml:"hmac" doc:"Any sender that signs the body with a shared secret."`
	Bearer   value.Secrets `yaml:"bearer" doc:"A token in Authorization: Bearer."`
	Basic    *Basic        `yaml:"basic" doc:"A user and a password, as HTTP has them."`
}

// Basic is a user of HTTP's basic authentication.
type Basic struct {
	User     string        `yaml:"user" doc:"Who sends."`
	Password value.Secrets `yaml:"password" doc:"The user's password."`
}

// UnmarshalText reads the short form "none".
func (v *Verify) UnmarshalText(text []byte) error {
	if string(text) != "none" {
		return fmt.Errorf("%q is no way to verify: write none, or a mapping with one of %s", text, verifyKeys)
	}
	*v = Verify{None: true}
	return nil
}

const verifyKeys = "github, gitlab, stripe, slack, shopify, twilio, standard, hmac, bearer, basic"

// ways are the keys that were written.
func (v *Verify) ways() (ways []string) {
	for _, way := range []struct {
		key     string
		written bool
	}{
		{"github", v.GitHub != nil},
		{"gitlab", v.GitLab != nil},
		{"stripe", v.Stripe != nil},
		{"slack", v.Slack != nil},
		{"shopify", v.Shopify != nil},
		{"twilio", v.Twilio != nil},
		{"standard", v.Standard != nil},
		{"hmac", v.HMAC != nil},
		{"bearer", v.Bearer != nil},
		{"basic", v.Basic != nil},
	} {
		if way.written {
			ways = append(ways, way.key)
		}
	}
	return ways
}

func (v *Verify) validate() value.Faults {
	ways := v.ways()
	switch {
	case v.None:
		return nil
	case len(ways) == 0:
		return value.Faults{{Msg: "says nothing: write one of " + verifyKeys + "; or verify: none if everybody may send"}}
	case len(ways) > 1:
		return value.Faults{{Key: ways[1], Msg: "stands beside " + ways[0] + ": write one of the two, and a source of its own for the other"}}
	}
	var faults value.Faults
	secrets := func(key string, list value.Secrets) {
		if len(list) == 0 {
			faults.Add(key, "has no secret: refer to one, such as ${env:NAME}")
		}
		for i, s := range list {
			if s.IsZero() {
				faults.Add(fmt.Sprintf("%s[%d]", key, i), "has no value: refer to a secret, such as ${env:NAME}")
			}
		}
	}
	switch way := ways[0]; way {
	case "twilio":
		secrets("twilio.token", v.Twilio.Token)
	case "hmac":
		secrets("hmac.secret", v.HMAC.Secret)
		faults = append(faults, v.HMAC.validate().Under(way)...)
	case "basic":
		secrets("basic.password", v.Basic.Password)
		if v.Basic.User == "" || strings.Contains(v.Basic.User, ":") {
			faults.Add("basic.user", "must be a name without a colon")
		}
	case "standard":
		secrets(way, v.Standard)
		for i, s := range v.Standard {
			if _, err := standardKeyOf(s); err != nil && !s.IsZero() {
				faults.Add(fmt.Sprintf("standard[%d]", i), "%v", err)
			}
		}
	default:
		for _, one := range []value.Secrets{v.GitHub, v.GitLab, v.Stripe, v.Slack, v.Shopify, v.Bearer} {
			if one != nil {
				secrets(way, one)
			}
		}
	}
	return faults
}

// scheme is a way to verify, ready to use, with what goes along with it.
type scheme struct {
	verify    func(*hook) (proof, error)
	challenge func(*hook) (answer []byte, ok bool) // what proves to the sender that we verify
	answer    func(http.ResponseWriter)            // to what was taken; nil for the usual one
	wants     string                               // WWW-Authenticate
	// service says that the sender is a program of somebody else: it reads no
	// answer but its status.
	service  bool
	defaults EventMap
}

// proof is what a request was verified by.
type proof struct {
	text  string    // the signature itself; "" when the same one is right for every request
	at    time.Time // what the sender signed as the time; zero when it signs none
	clock string    // where at stands
}

// unverified is why a request was not verified. It does not hold what was expected.
type unverified struct{ header, msg string }

func (u *unverified) Error() string { return u.header + ": " + u.msg }

// What a signature may be short of.
func missing(header string) error {
	return &unverified{header, "the header is missing: sign the request"}
}

func malformed(header, form string) error {
	return &unverified{header, "is not of the form " + form}
}

func wrong(header string) error {
	return &unverified{header, "does not fit the request: check the secret on both sides, and that nothing in between changes the request"}
}

// scheme makes the way that was chosen.
func (v *Verify) scheme() scheme {
	s := scheme{wants: `Signature realm="sluice"`, service: true, defaults: plainMap()}
	switch {
	case v.GitHub != nil:
		s.verify, s.defaults = verifyGitHub(v.GitHub), githubMap()
	case v.GitLab != nil:
		s.verify, s.defaults = verifyGitLab(v.GitLab), gitlabMap()
	case v.Stripe != nil:
		s.verify, s.defaults = verifyStripe(v.Stripe), stripeMap()
	case v.Slack != nil:
		s.verify, s.defaults = verifySlack(v.Slack), slackMap()
		s.challenge, s.answer = slackChallenge, answerNothing
	case v.Shopify != nil:
		s.verify, s.defaults = verifyShopify(v.Shopify), shopifyMap()
	case v.Twilio != nil:
		s.verify, s.defaults, s.answer = v.Twilio.verify, twilioMap(), answerTwiML
	case v.Standard != nil:
		s.verify, s.defaults = verifyStandard(v.Standard), standardMap()
	case v.HMAC != nil:
		s.verify = v.HMAC.verifier()
	case v.Bearer != nil:
		s.verify, s.wants, s.service = verifyBearer(v.Bearer), `Bearer realm="sluice"`, false
	case v.Basic != nil:
		s.verify, s.wants, s.service = v.Basic.verify, `Basic realm="sluice", charset="UTF-8"`, false
	default:
		s.verify, s.service = func(*hook) (proof, error) { return proof{}, nil }, false
	}
	if s.challenge == nil {
		s.challenge = func(*hook) ([]byte, bool) { return nil, false }
	}
	return s
}

const authorization = "Authorization"

func verifyBearer(secrets value.Secrets) func(*hook) (proof, error) {
	return func(h *hook) (proof, error) {
		header := h.r.Header.Get(authorization)
		scheme, sent, _ := strings.Cut(header, " ")
		switch {
		case header == "":
			return proof{}, &unverified{authorization, "the header is missing: send Authorization: Bearer <token>"}
		case !strings.EqualFold(scheme, "Bearer"):
			return proof{}, malformed(authorization, "Bearer <token>")
		case !secrets.Contain(strings.TrimSpace(sent)):
			return proof{}, &unverified{authorization, "the token is unknown"}
		}
		return proof{}, nil
	}
}

func (b *Basic) verify(h *hook) (proof, error) {
	if h.r.Header.Get(authorization) == "" {
		return proof{}, &unverified{authorization, "the header is missing: send a user and a password"}
	}
	user, password, ok := h.r.BasicAuth()
	if !ok {
		return proof{}, malformed(authorization, "Basic <user:password in base64>")
	}
	known := value.Secrets{value.NewSecret(b.User)}.Contain(user)
	if right := b.Password.Contain(password); !known || !right {
		return proof{}, &unverified{authorization, "the user or the password is wrong"}
	}
	return proof{}, nil
}

// answerNothing is what Slack takes for done: others of its statuses are failures.
func answerNothing(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }

// answerTwiML tells Twilio that there is nothing to do.
func answerTwiML(w http.ResponseWriter) {
	writeJSON(w, "text/xml", http.StatusOK, []byte("<Response/>"))
}
