package sources

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// EventMap says what the attributes of an event are made of: templates, see
// template. The body is the event's data as it came, with its content type.
type EventMap struct {
	Type       string            `yaml:"type" doc:"The type, as a template: text with <header.X-Topic>, <query.name>, <form.name>, <body.path>, <body>, <path> or <digest> in it; <a ?? b> is the first one there is, and [-<a>] is left out without it."`
	Source     string            `yaml:"source" doc:"The source, as a template."`
	Subject    string            `yaml:"subject" doc:"The subject, as a template; without its variables the event has none."`
	ID         string            `yaml:"id" doc:"The id, as a template. It has to be the same when a request is sent again: <digest> is, but is the same too for two requests with the same body."`
	Time       string            `yaml:"time" doc:"The time, as a template: RFC 3339, or seconds or milliseconds since 1970. When the request came in when left out."`
	Extensions map[string]string `yaml:"extensions" doc:"Further attributes by name, as templates; one without its variables is left out."`
}

// attribute is an attribute with its template.
type attribute struct {
	name     string
	template template
	required bool
	ours     bool // it was not written in the config, and may fail to fit
}

// written are the attributes that have a template.
func (m *EventMap) written() map[string]string {
	all := map[string]string{}
	for name, src := range m.Extensions {
		all[name] = src
	}
	for name, src := range map[string]string{"type": m.Type, "source": m.Source, "subject": m.Subject, "id": m.ID, "time": m.Time} {
		if src != "" {
			all[name] = src
		}
	}
	return all
}

func (m *EventMap) validate() value.Faults {
	var faults value.Faults
	all := m.written()
	for _, name := range sorted(all) {
		key := name
		if _, extension := m.Extensions[name]; extension {
			key = "extensions." + name
			if _, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/"}, {Name: "type", Value: "t"}, {Name: name, Value: "1"}}, nil); err != nil {
				faults.Add(key, "is no name for an attribute of its own: %v", err)
			}
		}
		if _, err := parseTemplate(all[name]); err != nil {
			faults.Add(key, "%v", err)
		}
	}
	return faults
}

func sorted(all map[string]string) []string {
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// mapping is an EventMap at work.
type mapping struct {
	attributes []attribute
	explicit   []attribute // those of the config, which a CloudEvent gets too
	id         template
}

// compile makes the mapping of valid templates; standard is for what is not there.
func (m *EventMap) compile(standard EventMap) *mapping {
	c := &mapping{}
	own, all := m.written(), standard.written()
	for name, src := range own {
		all[name] = src
	}
	for _, name := range sorted(all) {
		t, err := parseTemplate(all[name])
		if err != nil { // Validate has seen it
			continue
		}
		_, written := own[name]
		a := attribute{name: name, template: t, ours: !written, required: name == "id" || name == "source" || name == "type"}
		c.attributes = append(c.attributes, a)
		if written {
			c.explicit = append(c.explicit, a)
		}
		if name == "id" {
			c.id = t
		}
	}
	return c
}

// mapped is the event of a request. With digest its id is no more than a hash of
// what was sent.
type mapped struct {
	event  bus.Event
	digest bool
}

// event makes the event of a request. A CloudEvent stays one, with the attributes
// that the config gives.
func (m *mapping) event(h *hook) (mapped, error) {
	if isCloudEvent(h.r.Header) {
		return m.cloudEvent(h)
	}
	attrs := []bus.Attr{}
	for _, a := range m.attributes {
		attr, err := a.fill(h)
		if err != nil {
			return mapped{}, err
		}
		if attr.Value != "" {
			attrs = append(attrs, attr)
		}
	}
	if ct := h.r.Header.Get("Content-Type"); ct != "" {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: ct})
	}
	e, err := bus.NewEvent(attrs, h.body)
	if err != nil {
		return mapped{}, err
	}
	return mapped{e, m.id.digests(h)}, nil
}

// isCloudEvent tells whether a request says that it is an event already.
func isCloudEvent(h http.Header) bool {
	const cloudevents = "application/cloudevents"
	ct := h.Get("Content-Type")
	return h.Get("Ce-Specversion") != "" || len(ct) >= len(cloudevents) && strings.EqualFold(ct[:len(cloudevents)], cloudevents)
}

func (m *mapping) cloudEvent(h *hook) (mapped, error) {
	if mode, err := bus.ModeOf(h.r.Header); err != nil {
		return mapped{}, err
	} else if mode == bus.Batch {
		return mapped{}, &bus.MediaTypeError{Msg: "a webhook takes one event at a time: send batches to an http source"}
	}
	e, err := bus.FromHTTP(h.r.Header, h.body)
	if err != nil {
		return mapped{}, err
	}
	set := []bus.Attr{}
	for _, a := range m.explicit {
		attr, err := a.fill(h)
		if err != nil {
			return mapped{}, err
		}
		if attr.Value != "" {
			set = append(set, attr)
		}
	}
	if len(set) > 0 {
		if e, err = e.With(set...); err != nil {
			return mapped{}, err
		}
	}
	return mapped{event: e}, nil
}

// fill is the attribute for a request; without a value when there is none.
func (a *attribute) fill(h *hook) (bus.Attr, error) {
	text, lacks := a.template.fill(h)
	switch {
	case lacks != "" && a.required:
		return bus.Attr{}, &bus.AttributeError{Name: a.name, Msg: "is made of <" + lacks + ">, which the request does not have"}
	case lacks != "":
		return bus.Attr{}, nil
	case a.name == "time":
		at, ok := readTime(text)
		if !ok && !a.ours {
			return bus.Attr{}, &bus.AttributeError{Name: a.name, Msg: "is neither RFC 3339 nor a number of seconds or milliseconds"}
		}
		text = at
	}
	return bus.Attr{Name: a.name, Value: text}, nil
}

// readTime reads RFC 3339 and the time since 1970, in seconds with or without a
// fraction or in milliseconds: a number beyond the year 5138 is one of those.
func readTime(text string) (string, bool) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.Format(time.RFC3339Nano), true
	}
	n, err := strconv.ParseFloat(text, 64)
	const inMillis, last = 1e11, 253402300799
	if n >= inMillis {
		n /= 1000
	}
	if err != nil || math.IsNaN(n) || n < 0 || n > last {
		return "", false
	}
	whole, fraction := math.Modf(n)
	// A float64 holds the microseconds of our days, and no more.
	micros := int64(math.Round(fraction * 1e6))
	return time.Unix(int64(whole), micros*1000).UTC().Format(time.RFC3339Nano), true
}

// The events of each sender, in the same language as those of the config.

func plainMap() EventMap {
	return EventMap{Type: "webhook.received", Source: "<path>", ID: "<header.Idempotency-Key ?? digest>"}
}

func githubMap() EventMap {
	return EventMap{
		Type:    "com.github.<header.X-GitHub-Event>[.<body.action>]",
		Source:  "https://github.com[/<body.repository.full_name ?? body.organization.login ?? body.installation.account.login>]",
		ID:      "<header.X-GitHub-Delivery>",
		Subject: "<body.pull_request.number ?? body.issue.number ?? body.discussion.number ?? body.ref ?? body.workflow_run.id ?? body.release.tag_name>",
	}
}

func gitlabMap() EventMap {
	return EventMap{
		Type:   "com.gitlab.<body.object_kind ?? body.event_name>[.<body.object_attributes.action>]",
		Source: `<body.project.web_url ?? body.repository.homepage ?? body.group.web_url ?? header.X-Gitlab-Instance ?? "https://gitlab.com">`,
		// X-Gitlab-Event-UUID is that of the request to GitLab that led to all of this: events
		// of one cause share it.
		ID:      "<header.Webhook-Id ?? header.Idempotency-Key ?? header.X-Gitlab-Webhook-UUID ?? digest>",
		Subject: "<body.object_attributes.iid ?? body.ref ?? body.object_attributes.id>",
	}
}

func stripeMap() EventMap {
	return EventMap{
		Type:    "com.stripe.<body.type>",
		Source:  "https://api.stripe.com[/accounts/<body.account>]",
		ID:      "<body.id>",
		Subject: "<body.data.object.id ?? body.related_object.id>",
		Time:    "<body.created>",
	}
}

func slackMap() EventMap {
	return EventMap{
		Type:    `com.slack.<body.event.type ?? body.type ?? "command">`,
		Source:  "https://slack.com[/<body.team_id ?? body.team.id ?? form.team_id>]",
		ID:      "<body.event_id ?? body.trigger_id ?? form.trigger_id ?? digest>",
		Subject: "<body.event.channel ?? body.event.channel.id ?? body.channel.id ?? form.channel_id>",
		Time:    "<body.event_time>",
	}
}

func shopifyMap() EventMap {
	return EventMap{
		Type:    "com.shopify.<header.X-Shopify-Topic>",
		Source:  "https://<header.X-Shopify-Shop-Domain>",
		ID:      "<header.X-Shopify-Webhook-Id>",
		Subject: "<body.admin_graphql_api_id ?? body.id>",
		Time:    "<header.X-Shopify-Triggered-At>",
	}
}

func twilioMap() EventMap {
	return EventMap{
		Type:    "com.twilio[.message.<form.MessageStatus ?? form.SmsStatus>][.call.<form.CallStatus>]",
		Source:  "https://api.twilio.com[/<form.AccountSid>]",
		ID:      "<header.I-Twilio-Idempotency-Token ?? digest>",
		Subject: "<form.MessageSid ?? form.CallSid>",
	}
}

func standardMap() EventMap {
	return EventMap{
		Type:   `<body.type ?? body.event_type ?? "webhook.received">`,
		Source: "<path>",
		ID:     "<header.Webhook-Id ?? header.Svix-Id>",
		Time:   "<body.timestamp>",
	}
}
