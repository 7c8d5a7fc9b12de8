package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/config/value"
	"sluice/rules"
	"sluice/sinks"
)

// Subscriptions are rules with a sink of their own that callers make at run time.
// They are kept in the store, beside the YAML, and are part of every table that the
// dispatcher works with: a reload keeps them.

// subscriptionState begins the keys of subscriptions in the table of state.
const subscriptionState = "subscription."

// subscription is one of them, ready to run.
type subscription struct {
	doc     api.Subscription
	filters rules.Filters
	options dispatch.Options
	opener  sinks.Settings
	seen    time.Time // when it was made, renewed, or read at the start
	kept    []byte    // what is in the store
	broken  error     // why it cannot be used; nothing but doc, seen and kept is set then
}

func (s *subscription) name() string { return config.SubscriptionPrefix + s.doc.ID }

// where is the sink for the log: the path and the query of a URL may hold keys.
func (s *subscription) where() string {
	if http, ok := s.opener.(*sinks.HTTP); ok {
		return http.URL.Host
	}
	return s.doc.Sink
}

// loadSubscriptions reads what an earlier process kept.
func (a *App) loadSubscriptions(ctx context.Context) error {
	keys, err := a.store.StateKeys(ctx, subscriptionState)
	if err != nil {
		return err
	}
	all := map[string]*subscription{}
	for _, key := range keys {
		text, err := a.store.State(ctx, key)
		if err != nil && !errors.Is(err, bus.ErrDamaged) { // that one is broken
			return err
		}
		s := readSubscription(strings.TrimPrefix(key, subscriptionState), text)
		if s.broken != nil {
			a.log.Error("a subscription that was taken before cannot be used any more: it gets no events; what waits for it is kept until it is put anew or ended",
				"subscription", s.doc.ID, "err", s.broken)
		}
		all[s.doc.ID] = s
	}
	a.subscriptions.Store(&all)
	return nil
}

// readSubscription reads one from the store. What cannot be used stays there until its
// holder replaces or ends it: whoever reads it next may know what it says.
func readSubscription(id string, text []byte) *subscription {
	kept := keptSubscription{}
	err := json.Unmarshal(text, &kept)
	doc := kept.Subscription
	doc.ID, doc.Credential = id, kept.Credential
	var s *subscription
	if err == nil {
		s, err = newSubscription(doc)
	}
	if err != nil {
		doc.Error = err.Error()
		s = &subscription{doc: doc, seen: time.Now(), broken: err}
	}
	s.kept = text
	return s
}

// keptSubscription is a subscription in the store, with the secret that no answer
// shows.
type keptSubscription struct {
	api.Subscription
	Credential *api.SinkCredential `json:"kept_credential,omitempty"`
}

// newSubscription checks what a caller wants.
func newSubscription(doc api.Subscription) (*subscription, error) {
	s := &subscription{doc: doc, options: dispatch.DefaultOptions(), seen: time.Now()}
	s.options.Replies = cmp.Or(doc.Replies, dispatch.RepliesIgnored)
	var err error
	if s.filters, err = rules.ParseFilters(doc.Match, doc.Source, doc.Types, doc.Filters); err != nil {
		return nil, err
	}
	if err := checkConfig(doc); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	faults := append(s.options.Validate(), s.opener.Validate().Under("sink")...)
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %s", faults[0].Key, faults[0].Msg)
	}
	return s, nil
}

// configure makes the sink's settings.
func (s *subscription) configure() error {
	if s.doc.Sink == api.QueueSink {
		if s.doc.Credential != nil || s.doc.ProtocolSettings != nil {
			return errors.New("sink: a queue is fetched from: it takes no sinkcredential and no protocolsettings")
		}
		s.opener = sinks.NewQueue()
		return nil
	}
	if s.doc.Protocol != "" && s.doc.Protocol != api.ProtocolHTTP {
		return fmt.Errorf("protocol: %.64q is not supported: write HTTP", s.doc.Protocol)
	}
	hook := sinks.NewHTTP()
	var err error
	if hook.URL, err = value.ParseURL(s.doc.Sink); err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	if hook.URL.User != nil {
		return errors.New("sink: holds a user or password: send them as sinkcredential")
	}
	hook.Headers = map[string]value.Text{}
	if p := s.doc.ProtocolSettings; p != nil {
		if p.Method != "" && p.Method != http.MethodPost {
			return fmt.Errorf("protocolsettings.method: %q is not supported: events are POSTed", p.Method)
		}
		for name, text := range p.Headers {
			if http := textproto.CanonicalMIMEHeaderKey(name); http == "Authorization" || http == "Proxy-Authorization" || http == "Cookie" {
				return fmt.Errorf("protocolsettings.headers: %s is a secret, and these are shown: send it as sinkcredential", http)
			}
			hook.Headers[name] = value.NewText(text)
		}
	}
	if hook.Auth, err = authOf(s.doc.Credential); err != nil {
		return err
	}
	s.opener = hook
	return nil
}

// Subscriptions lists the subscriptions by id.
func (a *App) Subscriptions() []api.Subscription {
	all := a.current()
	list := []api.Subscription{}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id].doc.Shown())
	}
	return list
}

func (a *App) current() map[string]*subscription {
	if all := a.subscriptions.Load(); all != nil {
		return *all
	}
	return nil
}

// Subscribe makes a subscription, or replaces the one with that id; that of a new one
// is chosen here when it is empty. It is durable and in force when it returns.
func (a *App) Subscribe(ctx context.Context, doc api.Subscription) (api.Subscription, error) {
	if doc.ID == "" {
		doc.ID = strings.ToLower(rand.Text()[:12])
	}
	if err := checkFresh(doc, time.Now()); err != nil {
		return doc, &api.BadSubscription{Err: err}
	}
	a.change.Lock()
	defer a.change.Unlock()
	old := a.current()
	if err := keepCredential(&doc, old[doc.ID]); err != nil {
		return doc, &api.BadSubscription{Err: err}
	}
	s, err := newSubscription(doc)
	if err != nil {
		return doc, &api.BadSubscription{Err: err}
	}
	if most := a.Config().Subscriptions.Max; old[doc.ID] == nil && len(old) >= most {
		return doc, &api.BadSubscription{Err: fmt.Errorf("there are %d subscriptions already, and subscriptions.max allows no more", len(old))}
	}
	next := maps.Clone(old)
	if next == nil {
		next = map[string]*subscription{}
	}
	next[doc.ID] = s
	if err := a.keep(ctx, s); err != nil {
		return doc, err
	}
	if err := a.bringInto(ctx, next, s.name()); err != nil {
		var undo []byte
		if was := old[doc.ID]; was != nil {
			undo = was.kept
		}
		return doc, errors.Join(err, a.store.PutState(ctx, subscriptionState+doc.ID, undo))
	}
	shown := doc.Shown()
	log := a.log.With("subscription", doc.ID, "sink", s.where())
	if at := shown.CredentialExpires; !at.IsZero() {
		log = log.With("token_expires", at)
	}
	log.Info("subscribed")
	return shown, nil
}

// Unsubscribe ends a subscription; what waits for it is discarded, and counted.
func (a *App) Unsubscribe(ctx context.Context, id string) error {
	a.change.Lock()
	defer a.change.Unlock()
	return a.unsubscribe(ctx, id)
}

// unsubscribe is Unsubscribe for who holds the lock of changes.
func (a *App) unsubscribe(ctx context.Context, id string) error {
	if a.current()[id] == nil {
		return fmt.Errorf("subscription %q: %w", id, bus.ErrNotFound)
	}
	next := maps.Clone(a.current())
	delete(next, id)
	if err := a.store.PutState(ctx, subscriptionState+id, nil); err != nil {
		return err
	}
	a.log.Info("unsubscribed", "subscription", id)
	return a.bringInto(ctx, next, "")
}

// RenewSubscription lets a subscription that expires live for as long again, or for
// expires from now on when that is not 0.
func (a *App) RenewSubscription(ctx context.Context, id string, expires value.Duration) error {
	a.change.Lock()
	defer a.change.Unlock()
	old := a.current()[id]
	if old == nil {
		return fmt.Errorf("subscription %q: %w", id, bus.ErrNotFound)
	}
	renewed := *old
	if expires > 0 && expires != old.doc.Expires {
		if old.broken != nil {
			return &api.BadSubscription{Err: errors.New("expires: the subscription cannot be used any more, so nothing of it can be changed: put it anew")}
		}
		renewed.doc.Expires = expires
		if err := a.keep(ctx, &renewed); err != nil {
			return err
		}
	}
	renewed.seen = time.Now()
	next := maps.Clone(a.current())
	next[id] = &renewed
	a.subscriptions.Store(&next)
	return nil
}

// keep stores a subscription.
func (a *App) keep(ctx context.Context, s *subscription) (err error) {
	if s.kept, err = json.Marshal(keptSubscription{s.doc, s.doc.Credential}); err != nil {
		return err
	}
	return a.store.PutState(ctx, subscriptionState+s.doc.ID, s.kept)
}

// bringInto brings subscriptions into force; fresh names the sink to open.
func (a *App) bringInto(ctx context.Context, next map[string]*subscription, fresh string) error {
	if a.stopped {
		return bus.ErrClosed
	}
	ctx = context.WithoutCancel(ctx) // whoever asked may hang up: what is opened lives on
	table, err := a.tableWith(ctx, a.Config(), map[string]bool{fresh: true}, next)
	if err != nil {
		return err
	}
	if err := a.bus.Reload(ctx, table); err != nil {
		return err
	}
	a.subscriptions.Store(&next)
	return nil
}

// addSubscriptions adds subscriptions to a table. What waits for one that is gone is
// dropped: nobody is left who could choose.
func (a *App) addSubscriptions(ctx context.Context, t *dispatch.Table, may config.Subscriptions, fresh map[string]bool, all map[string]*subscription) error {
	for _, id := range slices.Sorted(maps.Keys(all)) {
		s := all[id]
		if s.broken != nil {
			continue
		}
		spec := dispatch.SinkSpec{Name: s.name(), Options: s.options}
		if fresh == nil || fresh[s.name()] {
			var err error
			spec.Sink, err = s.opener.Open(ctx, sinks.Env{
				Name: s.name(), Log: a.log.With("sink", s.name()), OrderBy: s.options.OrderBy, Guarded: !may.PrivateSinks, Allow: may.Allow,
			})
			if err != nil {
				return fmt.Errorf("subscription %s: %w", id, err)
			}
		}
		t.Sinks = append(t.Sinks, spec)
		t.Routes = append(t.Routes, dispatch.Route{
			Name: s.name(), Pattern: s.filters.Pattern(), Where: s.filters.Where(), To: []string{s.name()},
		})
	}
	t.Transient = func(sink string) bool {
		id, ok := strings.CutPrefix(sink, config.SubscriptionPrefix)
		return ok && all[id] == nil // of a broken one it is kept
	}
	return nil
}

// expireEvery is how often subscriptions that expire are looked through.
const expireEvery = 5 * time.Second

// expireSubscriptions ends those whose holders have not renewed them, until ctx ends.
func (a *App) expireSubscriptions(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for id, s := range a.current() {
			if s.over() {
				a.expire(ctx, id)
			}
		}
	}
}

// over tells whether the holder of a subscription has not renewed it in time.
func (s *subscription) over() bool {
	life := time.Duration(s.doc.Expires)
	return life > 0 && time.Since(s.seen) > life
}

// expire ends a subscription, unless it was renewed while another change was made.
func (a *App) expire(ctx context.Context, id string) {
	a.change.Lock()
	defer a.change.Unlock()
	if s := a.current()[id]; s == nil || !s.over() {
		return
	}
	a.log.Info("a subscription was not renewed in time", "subscription", id)
	if err := a.unsubscribe(ctx, id); err != nil {
		a.log.Warn("cannot end a subscription", "subscription", id, "err", err)
	}
}
