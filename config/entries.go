package config

import (
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"

	"sluice/bus/dispatch"
	"sluice/config/value"
	"sluice/sinks"
)

// settings is what the settings of sources and sinks have in common.
type settings interface {
	Validate() value.Faults
}

func (l *loader) source(entry pair, path string) {
	var names []string
	for _, k := range l.opts.Sources {
		names = append(names, k.Name)
	}
	kind, ok := l.kind(entry, path, names, reflect.Value{})
	if !ok {
		return
	}
	for _, k := range l.opts.Sources {
		if k.Name == kind.key.Value {
			s := k.New()
			l.settings(kind, path, s)
			l.config.Sources = append(l.config.Sources, Source{entry.key.Value, k.Name, s, l.pos(entry.key)})
			return
		}
	}
}

func (l *loader) sink(entry pair, path string) {
	var names []string
	for _, k := range l.opts.Sinks {
		names = append(names, k.Name)
	}
	options := dispatch.DefaultOptions()
	kind, ok := l.kind(entry, path, names, reflect.ValueOf(&options).Elem())
	l.keyed(path, options.Validate())
	for key, to := range map[string]string{"on_success": options.OnSuccess, "on_failure": options.OnFailure} {
		if at := path + "." + key; to != "" {
			l.uses = append(l.uses, use{to, at, l.placeOf(at)})
		}
	}
	if !ok {
		return
	}
	for _, k := range l.opts.Sinks {
		if k.Name == kind.key.Value {
			s := k.New()
			l.settings(kind, path, s)
			l.beside(entry, path, k, options)
			l.checkOrder(join(path, kind.key.Value), s, options.OrderBy)
			l.config.Sinks = append(l.config.Sinks, Sink{entry.key.Value, k.Name, s, options, l.pos(entry.key)})
			return
		}
	}
}

// beside reports options that do nothing beside a kind, or beside one another.
func (l *loader) beside(entry pair, path string, kind sinks.Kind, options dispatch.Options) {
	for _, p := range pairs(entry.val) {
		switch key := p.key.Value; {
		case contains(kind.Ignores, key):
			l.errorf(p.key, join(path, key), "does nothing beside %s: leave it out; `sluice kinds %s` lists what that goes by", kind.Name, kind.Name)
		case key == "replies" && options.Replies == dispatch.RepliesPublished && options.Batch.Max > 1:
			l.report.warnf(l.pos(p.key), join(path, key), "events in the answer to a batch are not published, as they answer none of its events: leave batch out if they matter")
		}
	}
}

// checkOrder warns of settings of a sink with which its far side does not keep the
// order that the bus keeps.
func (l *loader) checkOrder(at string, s sinks.Settings, orderBy string) {
	orderer, ok := s.(sinks.Orderer)
	if !ok || orderBy == "" {
		return
	}
	for _, f := range orderer.CheckOrder(orderBy) {
		path := at + "." + f.Key
		if !l.report.wrong[path] {
			l.report.warnf(l.placeOf(path), path, "%s", f.Msg)
		}
	}
}

// settings fills s with the value of its kind and validates it.
func (l *loader) settings(kind pair, path string, s settings) {
	at := join(path, kind.key.Value)
	l.decode(kind.val, at, reflect.ValueOf(s).Elem(), "")
	l.keyed(at, s.Validate())
}

// kind finds the one key of a source or sink that names its kind, and decodes its
// siblings into options, which is the zero Value when there can be none.
func (l *loader) kind(entry pair, path string, kinds []string, options reflect.Value) (kind pair, ok bool) {
	n := entry.val
	if n.Kind != yaml.MappingNode {
		l.errorf(n, path, "is %s, wants a mapping with its kind: %s", describe(n), oneOf(kinds))
		return pair{}, false
	}
	var siblings []field
	if options.IsValid() {
		siblings = fieldsOf(options.Type())
	}
	var found, unknown []pair
	for _, p := range pairs(n) {
		switch {
		case contains(kinds, p.key.Value):
			found = append(found, p)
		case contains(keysOf(siblings), p.key.Value):
			l.field(p, path, options, siblings, nil)
		default:
			unknown = append(unknown, p)
		}
	}
	for _, p := range unknown {
		l.unknownKind(p, path, kinds, keysOf(siblings), len(found) == 0)
	}
	switch {
	case len(found) == 0 && len(unknown) == 0 && !l.report.around[path]:
		l.errorf(entry.key, path, "has no kind: write one of %s", oneOf(kinds))
	case len(found) > 1:
		l.errorf(found[1].key, join(path, found[1].key.Value), "is a second kind, after %s: write a %s of its own",
			found[0].key.Value, entryWord(options))
	}
	if len(found) == 0 {
		return pair{}, false
	}
	return found[0], true
}

// unknownKind reports a key that is neither a kind nor an option. When the kind is
// missing, it may have been meant to be the kind.
func (l *loader) unknownKind(p pair, path string, kinds, options []string, missing bool) {
	key := p.key.Value
	at := join(path, key)
	switch {
	case missing && nearest(key, options) == "":
		hint := didYouMean(key, kinds)
		if hint == "" {
			hint = ": the kinds are " + oneOf(kinds)
		}
		l.errorf(p.key, at, "unknown kind%s", hint)
	case missing:
		l.unknownKey(p.key, at, slices.Concat(kinds, options))
	case len(options) == 0:
		l.errorf(p.key, at, "unknown key: nothing stands beside the kind of a source, write it inside")
	default:
		l.unknownKey(p.key, at, options)
	}
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

func entryWord(options reflect.Value) string {
	if options.IsValid() {
		return "sink"
	}
	return "source"
}

func (l *loader) rule(entry pair, path string) {
	rule := Rule{Name: entry.key.Value, Enabled: true, Pos: l.pos(entry.key)}
	if !l.wants(entry.val, path, yaml.MappingNode) {
		return
	}
	l.fields(entry.val, path, reflect.ValueOf(&rule).Elem())
	l.require(entry.key, entry.val, path, "match", "name what to match, such as {type: [order.created]}")
	l.require(entry.key, entry.val, path, "to", "name the sinks that get the events")
	l.transform(&rule, valueOf(entry.val, "transform"), path+".transform")
	at := path + ".to"
	if _, written := l.places[at]; written && rule.To != nil && len(rule.To) == 0 {
		l.report.errorf(l.placeOf(at), at, "names no sink: name one, or write enabled: false")
	}
	l.use(rule.To, at)
	l.config.Rules = append(l.config.Rules, rule)
}

// tests reads the list of tests; the lists of several files make one.
func (l *loader) tests(n *yaml.Node) {
	if !l.wants(n, "tests", yaml.SequenceNode) {
		return
	}
	for _, item := range n.Content {
		item = resolve(item)
		path := index("tests", len(l.config.Tests))
		test := Test{Pos: l.pos(item)}
		if l.wants(item, path, yaml.MappingNode) {
			l.fields(item, path, reflect.ValueOf(&test).Elem())
			l.require(item, item, path, "event", "write the event")
			l.require(item, item, path, "expect", "name every sink the event goes to, or write [] for none")
			l.use(test.Expect, path+".expect")
		}
		l.config.Tests = append(l.config.Tests, test)
	}
}

// require reports a key that is not there, not even misspelt.
func (l *loader) require(at, n *yaml.Node, path, key, hint string) {
	for _, p := range pairs(n) {
		if p.key.Value == key || nearest(p.key.Value, []string{key}) != "" {
			return
		}
	}
	l.errorf(at, path, "has no %s: %s", key, hint)
}

// use notes a list of sinks to be checked once every file was read.
func (l *loader) use(names []string, path string) {
	seen := map[string]bool{}
	for i, sink := range names {
		at := index(path, i)
		if seen[sink] && sink != "" {
			l.report.errorf(l.placeOf(at), at, "names %s a second time", quote(sink))
			continue
		}
		seen[sink] = true
		l.uses = append(l.uses, use{sink, at, l.placeOf(at)})
	}
}
