package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/value"
	"sluice/sinks"
	"sluice/sources"
)

// Options are what a config is loaded against.
type Options struct {
	Sinks   []sinks.Kind   // the kinds a sink may be of
	Sources []sources.Kind // the kinds a source may be of

	// What ${env:NAME} and ${file:/path} look up; the process's own when nil.
	Env      func(name string) (string, bool)
	ReadFile func(path string) ([]byte, error)
}

// maxFile is the largest config file.
const maxFile = 4 << 20

// Load reads the config at path: a file, or a directory whose *.yaml and *.yml
// files count as one. The error is a Faults when the config is wrong.
func Load(path string, opts Options) (*Config, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	l := newLoader(opts)
	for _, file := range files {
		src, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		l.add(file, src)
	}
	return l.finish(path)
}

// Parse reads a config from memory; name stands for the file in faults.
func Parse(name string, src []byte, opts Options) (*Config, error) {
	l := newLoader(opts)
	l.add(name, src)
	return l.finish(name)
}

// filesOf are the files of a config in the order of their names. Hidden ones are
// left out: mounted Kubernetes volumes keep their versions in such directories.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no *.yaml or *.yml file", path)
	}
	return files, nil
}

// readFile reads one byte more than a config may have, for add to refuse.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return src, errors.Join(err, f.Close())
}

// loader puts the files of one config together.
type loader struct {
	decoder
	opts    Options
	config  *Config
	names   map[string]Pos // where each section and each name was first written
	uses    []use
	entries []string // what Version sums up
	empty   bool     // no file says anything
	partial bool     // a part could not be read, and may hold any name
}

// use is a place that names a sink.
type use struct {
	sink string
	path string
	pos  Pos
}

func newLoader(opts Options) *loader {
	resolver := value.OSResolver()
	if opts.Env != nil {
		resolver.Env = opts.Env
	}
	if opts.ReadFile != nil {
		resolver.ReadFile = opts.ReadFile
	}
	return &loader{
		decoder: decoder{resolver: resolver, report: newReport(), places: map[string]Pos{}},
		opts:    opts,
		config:  defaults(),
		names:   map[string]Pos{},
		empty:   true,
	}
}

// add reads one file into the config.
func (l *loader) add(file string, src []byte) {
	l.file, l.src = file, src
	if len(src) > maxFile {
		l.report.errorf(Pos{File: file}, "", "is larger than %s: split it into a directory of files", value.Bytes(maxFile))
		l.empty, l.partial = false, true
		return
	}
	root, ok := parseYAML(file, src, l.report)
	if ok && (root == nil || root.ShortTag() == nullTag) {
		return
	}
	l.empty = false
	if !ok || !checkShape(file, root, l.report) {
		l.partial = true
		return
	}
	if root.Kind != yaml.MappingNode {
		l.partial = true
		l.errorf(root, "", "is %s, wants the sections of a config: %s", describe(root), oneOf(sections()))
		return
	}
	for _, p := range pairs(root) {
		l.section(p)
	}
	l.entries = append(l.entries, entriesOf(root)...)
}

// sections are the keys of a config.
func sections() []string {
	return append(lists(), keysOf(fieldsOf(reflect.TypeFor[Config]()))...)
}

// lists are the sections that several files may add to.
func lists() []string { return []string{"sources", "sinks", "rules", "tests"} }

func (l *loader) section(p pair) {
	switch p.key.Value {
	case "sources":
		l.named(p, l.source)
	case "sinks":
		l.named(p, l.sink)
	case "rules":
		l.named(p, l.rule)
	case "tests":
		l.tests(p.val)
	default:
		if l.first(p.key, p.key.Value) {
			l.field(p, "", reflect.ValueOf(l.config).Elem(), fieldsOf(reflect.TypeFor[Config]()), lists())
		}
	}
}

// first reports a section or a name that an earlier file has too.
func (l *loader) first(key *yaml.Node, path string) bool {
	if at, taken := l.names[path]; taken {
		l.errorf(key, path, "stands twice, first at %s", at)
		return false
	}
	l.names[path] = l.pos(key)
	return true
}

// validName is what sources, sinks and rules may be called: names are parts of metrics,
// URLs and storage subjects.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)

const maxName = 64

// SubscriptionPrefix begins the names of the sinks and rules of subscriptions.
const SubscriptionPrefix = "sub."

// named reads a section of named entries.
func (l *loader) named(p pair, read func(pair, string)) {
	section := p.key.Value
	if !l.wants(p.val, section, yaml.MappingNode) {
		l.partial = l.partial || p.val.ShortTag() != nullTag
		return
	}
	for _, entry := range pairs(p.val) {
		path := join(section, entry.key.Value)
		if len(entry.key.Value) > maxName || !validName.MatchString(entry.key.Value) {
			l.names[path] = l.pos(entry.key) // so that its uses are no faults too
			l.errorf(entry.key, path, "is not a name: write 1 to 64 letters, digits, _ or -, with single dots between them, beginning with a letter or digit")
			continue
		}
		if section != "sources" && strings.HasPrefix(entry.key.Value, SubscriptionPrefix) {
			l.errorf(entry.key, path, "begins with %s, as the names of subscriptions do: choose another", SubscriptionPrefix)
			continue
		}
		if l.first(entry.key, path) {
			l.places[path] = l.pos(entry.key)
			read(entry, path)
		}
	}
}

// finish checks what no single entry shows.
func (l *loader) finish(path string) (*Config, error) {
	if l.empty {
		l.report.errorf(Pos{path, 1, 1}, "", "the config is empty: begin with sinks and rules")
	}
	l.places[""] = Pos{path, 1, 1}
	if !l.report.around["server.auth"] { // or it would count as no auth
		l.keyed("server", l.config.Server.Validate())
	}
	l.checkCertificates()
	l.keyed("store", l.config.Store.Validate())
	l.keyed("dedup", l.config.Dedup.Validate())
	l.keyed("subscriptions", l.config.Subscriptions.Validate())
	for name := range l.config.RemovedSinks {
		if _, ok := l.names["sinks."+name]; ok {
			at := "removed_sinks." + name
			l.report.errorf(l.placeOf(at), at, "the sink is there: leave it out here, or take it out of sinks")
		}
	}
	for i, sink := range l.config.Unmatched {
		at := index("unmatched", i)
		l.uses = append(l.uses, use{sink, at, l.placeOf(at)})
	}
	l.checkUses()
	l.checkTransforms()
	faults := l.report.sorted()
	if l.report.failed {
		return nil, faults
	}
	l.config.Warnings = faults
	l.config.version, l.config.entries = version(l.entries), l.entries
	return l.config, nil
}

// checkCertificates reports sources that wait for certificates for which nobody asks.
func (l *loader) checkCertificates() {
	if l.config.Server.TLS.ClientCA != "" || l.report.around["server.tls"] {
		return
	}
	for _, s := range l.config.Sources {
		if at := "sources." + s.Name + "." + s.Kind + ".auth.certificates"; s.certified() && !l.report.around[at] {
			l.report.errorf(l.placeOf(at), at, "needs server.tls.client_ca: it says whose certificates count")
		}
	}
}

// checkTransforms reports what a transform does to a request on the way to a queue.
func (l *loader) checkTransforms() {
	kinds := map[string]string{}
	for _, s := range l.config.Sinks {
		kinds[s.Name] = s.Kind
	}
	for _, r := range l.config.Rules {
		if r.transform == nil || !r.transform.Requests() {
			continue
		}
		for _, to := range r.To {
			if kinds[to] == "queue" {
				at := "rules." + r.Name + ".transform.http"
				l.report.errorf(l.placeOf(at), at, "makes a request, and %s is a queue, which gives out messages: write input or template alone, or a second rule for %s",
					quote(to), quote(to))
			}
		}
	}
}

// checkUses reports sinks that are named but not there, and the other way round.
func (l *loader) checkUses() {
	var known []string
	for path := range l.names {
		if sink, ok := strings.CutPrefix(path, "sinks."); ok {
			known = append(known, sink)
		}
	}
	slices.Sort(known)
	used := map[string]bool{}
	for _, u := range l.uses {
		used[u.sink] = true
		switch _, ok := slices.BinarySearch(known, u.sink); {
		case ok, l.report.wrong[u.path]:
		case l.partial && u.sink != "":
		case u.sink == "":
			l.report.errorf(u.pos, u.path, "names no sink")
		default:
			hint := cmp.Or(didYouMean(u.sink, known), ": write it under sinks")
			l.report.errorf(u.pos, u.path, "there is no sink %s%s", quote(u.sink), hint)
		}
	}
	if l.partial || l.report.around["rules"] || l.report.around["unmatched"] {
		return // a sink may be unused only for want of what is wrong there
	}
	for _, s := range l.config.Sinks {
		if !used[s.Name] {
			l.report.warnf(s.Pos, "sinks."+s.Name, "no rule sends events here")
		}
	}
}
