package api_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sluice/cmd/internal/api"
)

// document is openapi.json, and the schemas in it.
type document struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
}

func openDocument(t *testing.T) document {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(api.Document()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return document{doc.(map[string]any), c}
}

// at follows keys into the document; references are followed.
func (d document) at(keys ...string) map[string]any {
	v := d.doc
	for _, key := range keys {
		next, _ := v[key].(map[string]any)
		if ref, ok := next["$ref"].(string); ok {
			next = d.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
		v = next
	}
	return v
}

// schema is the compiled schema under keys.
func (d document) schema(keys ...string) (*jsonschema.Schema, error) {
	var pointer strings.Builder
	for _, key := range keys {
		pointer.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key))
	}
	return d.compiler.Compile("openapi.json#" + pointer.String())
}

// Every route is in the document, and the other way round; with the scope it asks.
func TestEveryRouteIsDocumented(t *testing.T) {
	t.Parallel()
	d := openDocument(t)
	var routes, documented []string
	for _, r := range api.Routes() {
		scope := "[]"
		if r.Scope != api.Anybody {
			scope = fmt.Sprintf("[map[] map[bearer:[%s]]]", r.Scope)
		}
		routes = append(routes, r.Method+" "+r.Path+" "+scope)
	}
	for path := range d.at("paths") {
		for method, op := range d.at("paths", path) {
			documented = append(documented, strings.ToUpper(method)+" "+path+" "+fmt.Sprint(op.(map[string]any)["security"]))
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("routes:\n%s\ndocumented:\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
}

// The document holds together: references lead somewhere, schemas are schemas,
// names in paths are parameters, operations have different names.
func TestDocumentIsSound(t *testing.T) {
	t.Parallel()
	d := openDocument(t)
	if d.doc["openapi"] != "3.1.0" {
		t.Errorf("openapi: %v", d.doc["openapi"])
	}
	for name := range d.at("components", "schemas") {
		if _, err := d.schema("components", "schemas", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ids := map[any]string{}
	for path := range d.at("paths") {
		for method := range d.at("paths", path) {
			op := d.at("paths", path, method)
			where := method + " " + path
			if other, twice := ids[op["operationId"]]; twice {
				t.Errorf("%s has the operationId of %s", where, other)
			}
			ids[op["operationId"]] = where
			checkParameters(t, where, path, op)
			for status := range d.at("paths", path, method, "responses") {
				for mediaType := range d.at("paths", path, method, "responses", status, "content") {
					if d.at("paths", path, method, "responses", status, "content", mediaType, "schema") == nil {
						t.Errorf("%s, %s, %s: there is no schema", where, status, mediaType)
					}
				}
			}
		}
	}
}

func checkParameters(t *testing.T, where, path string, op map[string]any) {
	t.Helper()
	params, _ := op["parameters"].([]any)
	inPath := 0
	for _, p := range params {
		p := p.(map[string]any)
		if p["in"] == "path" {
			inPath++
			if !strings.Contains(path, "{"+p["name"].(string)+"}") {
				t.Errorf("%s: the path has no %v", where, p["name"])
			}
		}
	}
	if inPath != strings.Count(path, "{") {
		t.Errorf("%s: some name in the path is no parameter", where)
	}
}

// checked is a transport that holds every answer against the document.
type checked struct {
	t    *testing.T
	d    document
	next http.RoundTripper
}

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	path := c.template(r.URL.Path)
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	op := c.d.at("paths", path, strings.ToLower(r.Method))
	if op == nil || mediaType == "application/x-ndjson" {
		return resp, nil
	}
	keys := []string{"paths", path, strings.ToLower(r.Method), "responses", fmt.Sprint(resp.StatusCode)}
	described := c.d.at(append(keys, "content", mediaType)...)
	if resp.StatusCode == http.StatusNoContent { // it has no content to describe
		described = c.d.at(keys...)
	}
	if described == nil {
		c.t.Errorf("%s %s answers %d %s, which is not documented (%v)", r.Method, path, resp.StatusCode, mediaType,
			slices.Sorted(maps.Keys(c.d.at(keys[:4]...))))
		return resp, nil
	}
	if !strings.HasSuffix(mediaType, "json") {
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err == nil {
		c.check(r.Method+" "+path, keys, mediaType, body)
	}
	return resp, err
}

// check validates a body. A response that is a reference is looked up there.
func (c checked) check(where string, keys []string, mediaType string, body []byte) {
	if ref, ok := c.d.at(keys[:4]...)[keys[4]].(map[string]any)["$ref"].(string); ok {
		keys = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	}
	schema, err := c.d.schema(append(keys, "content", mediaType, "schema")...)
	if err != nil {
		c.t.Errorf("%s: %v", where, err)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		c.t.Errorf("%s: %v\n%s", where, err, body)
	}
}

// template is the path of the document that a path of a request stands for.
func (c checked) template(path string) string {
	if c.d.at("paths", path) != nil {
		return path
	}
	parts := strings.Split(path, "/")
	for candidate := range c.d.at("paths") {
		other := strings.Split(candidate, "/")
		if len(parts) == len(other) && slices.EqualFunc(parts, other, func(a, b string) bool { return a == b || strings.HasPrefix(b, "{") }) {
			return candidate
		}
	}
	return path
}
