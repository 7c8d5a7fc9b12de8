package cli

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/config/value"
	"sluice/rules"
)

// wanted are the flags that say which events a subscription is for.
type wanted struct {
	match   string
	types   []string
	source  string
	filters []string
}

func (s *wanted) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.match, "match", "", "only events that match this `pattern`, JSON as under match in a rule")
	f.StringArrayVar(&s.types, "type", nil, "only events of this `type`; may be given several times")
	f.StringVar(&s.source, "source", "", "only events of this `source`")
	f.StringArrayVar(&s.filters, "filter", nil, `only events that this filter lets through, such as '{"prefix": {"subject": "eu/"}}'; may be given several times`)
}

// subscription checks the flags, and is what they ask for.
func (s *wanted) subscription(sink string) (api.Subscription, error) {
	doc := api.Subscription{Source: s.source, Types: s.types, Sink: sink}
	if s.match != "" {
		doc.Match = json.RawMessage(s.match)
	}
	for _, filter := range s.filters {
		if !json.Valid([]byte(filter)) {
			return doc, usagef("--filter: %s is not JSON", filter)
		}
		doc.Filters = append(doc.Filters, json.RawMessage(filter))
	}
	if _, err := rules.ParseFilters(doc.Match, doc.Source, doc.Types, doc.Filters); err != nil {
		return doc, usagef("%w", err)
	}
	return doc, nil
}

func newSubscribeCommand(e *env) *cobra.Command {
	var s wanted
	var sink sinkFlags
	var id string
	var expires value.Duration
	cmd := &cobra.Command{
		Use:   "subscribe --to URL",
		Short: "Send events to a function, from now on, without a change of the config.",
		Long: `Make a subscription: events that match everything given are sent to the function, as by a
rule, until the subscription is ended with sluice subscriptions rm. It is kept over
restarts. Unless subscriptions: {private_sinks: true} or {allow: […]} of the config lets
it, the function must have a public address.

The token of --bearer is kept by the server and never shown. With --id of a subscription
that has one, it stays when --bearer is left out.`,
		Example: `  sluice subscribe --to https://fn.example.com/thumbs --type object.created.put
  sluice subscribe --to https://fn.example.com/big --match '{"data": {"size": [{"numeric": [">", 1000000]}]}}'
  sluice subscribe --to https://fn.example.com/in --type order.created --bearer '${env:FN_TOKEN}' --header 'X-Tenant: eu'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if sink.to == "" {
				return usagef("--to is missing: give the URL that events are POSTed to")
			}
			doc, err := s.subscription(sink.to)
			if err != nil {
				return err
			}
			if err := sink.add(c, e, &doc); err != nil {
				return err
			}
			doc.Expires = expires
			client, err := e.client()
			if err != nil {
				return err
			}
			method, path := http.MethodPost, "subscriptions"
			if id != "" {
				method, path = http.MethodPut, "subscriptions/"+url.PathEscape(id)
			}
			answer, err := client.call(c.Context(), method, path, nil, doc)
			if err != nil || e.json() {
				return e.printOr(answer, err)
			}
			made, err := decode[api.Subscription](answer, nil)
			if err != nil {
				return err
			}
			e.printf("subscribed %s: `sluice subscriptions rm %s` ends it\n", made.Sink, made.ID)
			return nil
		},
	}
	s.flags(cmd)
	sink.flags(cmd)
	cmd.Flags().StringVar(&id, "id", "", "what the subscription is called (default one that is chosen); an existing one is replaced")
	cmd.Flags().TextVar(&expires, "expires", value.Duration(0), "end it when it is not renewed for so long, such as 1h (default never)")
	return cmd
}

// sinkFlags are the flags that say how the function of a subscription is reached.
type sinkFlags struct {
	to      string
	bearer  string
	headers []string
}

func (s *sinkFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.to, "to", "", "the `URL` that events are POSTed to")
	f.StringVar(&s.bearer, "bearer", "", "a `reference` to the token that the function wants to see, such as '${env:NAME}' or '${file:/path}'")
	f.StringArrayVar(&s.headers, "header", nil, "one more `header` of each request, such as 'X-Tenant: eu'; it is shown to who lists subscriptions; may be given several times")
}

// add writes what the flags say into a subscription.
func (s *sinkFlags) add(c *cobra.Command, e *env, doc *api.Subscription) error {
	for _, header := range s.headers {
		name, text, ok := strings.Cut(header, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return usagef("--header has no name and value: write one such as 'X-Tenant: eu'")
		}
		if doc.ProtocolSettings == nil {
			doc.ProtocolSettings = &api.ProtocolSettings{Headers: map[string]string{}}
		}
		doc.ProtocolSettings.Headers[name] = strings.TrimSpace(text)
	}
	if c.Flags().Changed("bearer") { // an empty one is a variable that was not set
		token, err := e.secret("--bearer", s.bearer, "")
		if err != nil {
			return err
		}
		doc.Credential = &api.SinkCredential{Type: api.CredentialToken, AccessToken: token.Value(), AccessTokenType: "bearer"}
	}
	return nil
}

func newSubscriptionsCommand(e *env) *cobra.Command {
	return newGroup("subscriptions", "List, renew and end subscriptions.", "  sluice subscriptions ls",
		newSubscriptionsLsCommand(e), newSubscriptionsRenewCommand(e), newSubscriptionsRmCommand(e))
}

func newSubscriptionsRenewCommand(e *env) *cobra.Command {
	var ttl value.Duration
	cmd := &cobra.Command{
		Use:   "renew ID",
		Short: "Let a subscription that expires live on.",
		Long: `Let a subscription that ends when it is not renewed live for as long again; with --ttl for
that long, now and after each renewal to come.`,
		Example: `  sluice subscriptions renew k3j5x0a2m9qd
  sluice subscriptions renew k3j5x0a2m9qd --ttl 1h`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			if c.Flags().Changed("ttl") {
				if ttl <= 0 {
					return usagef("--ttl %s is no time to live: write one such as 1h", ttl)
				}
				body["expires"] = ttl
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			if _, err := client.post(c.Context(), "subscriptions/"+url.PathEscape(args[0])+"/renew", body); err != nil {
				return err
			}
			e.printf("renewed %s\n", args[0])
			return nil
		},
	}
	cmd.Flags().TextVar(&ttl, "ttl", value.Duration(0), "how long it lives without being renewed, such as 1h (default as before)")
	return cmd
}

func newSubscriptionsLsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the subscriptions.",
		Long:    "List the subscriptions. The sink of each is called sub. and its id: see sluice sinks show.",
		Example: "  sluice subscriptions ls",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			doc, err := client.get(c.Context(), "subscriptions", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			all, err := decode[[]api.Subscription](doc, nil)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				e.note("no subscriptions")
				return nil
			}
			t := newTable("ID", "SINK", "SOURCE", "TYPES", "FILTERS", "EXPIRES", "STATE")
			for _, s := range all {
				var filters []string
				if s.Match != nil {
					filters = append(filters, "match "+string(s.Match))
				}
				for _, f := range s.Filters {
					filters = append(filters, string(f))
				}
				expires := "never"
				if s.Expires > 0 {
					expires = "when not renewed for " + s.Expires.String()
				}
				state := "active"
				if s.Error != "" {
					state = "broken: " + s.Error
				} else if at := s.CredentialExpires; !at.IsZero() && !at.After(e.now()) {
					state = "active, with a token that expired " + span(e.now().Sub(at)) + " ago"
				}
				t.add(s.ID, s.Sink, s.Source, strings.Join(s.Types, ","), strings.Join(filters, " "), expires, state)
			}
			return t.print(e.stdout)
		},
	}
}

func newSubscriptionsRmCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm ID",
		Short:   "End a subscription; what waits for it is discarded.",
		Long:    "End a subscription. What waits for it is discarded, and counted as that.",
		Example: "  sluice subscriptions rm k3j5x0a2m9qd",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			if _, err := client.call(c.Context(), http.MethodDelete, "subscriptions/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			e.printf("unsubscribed %s\n", args[0])
			return nil
		},
	}
}
