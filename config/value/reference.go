package value

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Resolver looks up what references name. A nil field refuses its kind of
// reference.
type Resolver struct {
	Env      func(name string) (string, bool)
	ReadFile func(path string) ([]byte, error)
}

// maxReferenced is how much of a referenced file is read: a secret is short, and
// /dev/zero must not fill the memory.
const maxReferenced = 1 << 20

// OSResolver looks up in the environment and the file system of the process.
func OSResolver() Resolver {
	return Resolver{Env: os.LookupEnv, ReadFile: readFile}
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxReferenced+1))
	if err == nil && len(content) > maxReferenced {
		err = fmt.Errorf("%s is larger than %s", path, Bytes(maxReferenced))
	}
	return content, err
}

// HasReference reports that text holds something that Text and Secret would
// resolve.
func HasReference(text string) bool {
	for _, part := range split(text) {
		if part.ref {
			return true
		}
	}
	return false
}

// Expand resolves the references of text: ${env:NAME}, ${env:NAME:-default} (used
// when NAME is unset or empty) and ${file:/path} (without one newline at its
// end). $${ is a plain ${.
func (r Resolver) Expand(text string) (string, error) {
	var out strings.Builder
	for _, p := range split(text) {
		if !p.ref {
			out.WriteString(p.text)
			continue
		}
		v, err := r.lookUp(p.text)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
	}
	return out.String(), nil
}

// part is a piece of a text: plain, or the inside of a reference.
type part struct {
	text string
	ref  bool
}

func split(text string) []part {
	var parts []part
	for text != "" {
		at := strings.Index(text, "${")
		if at < 0 {
			return append(parts, part{text: text})
		}
		if at > 0 && text[at-1] == '$' {
			parts = append(parts, part{text: text[:at-1] + "${"})
			text = text[at+2:]
			continue
		}
		if at > 0 {
			parts = append(parts, part{text: text[:at]})
		}
		inside, rest, closed := strings.Cut(text[at+2:], "}")
		if !closed {
			inside = text[at:] // lookUp tells: no reference starts with ${
		}
		parts = append(parts, part{text: inside, ref: true})
		text = rest
	}
	return parts
}

func (r Resolver) lookUp(inside string) (string, error) {
	if strings.HasPrefix(inside, "${") {
		return "", errors.New("a ${ is never closed: add the }, or write $${ for a plain ${")
	}
	kind, name, _ := strings.Cut(inside, ":")
	switch kind {
	case "env":
		return r.env(name)
	case "file":
		return r.file(name)
	}
	return "", fmt.Errorf("${%s} is not a reference: write ${env:NAME} or ${file:/path}, or $${ for a plain ${", inside)
}

func (r Resolver) env(name string) (string, error) {
	name, fallback, hasFallback := strings.Cut(name, ":-")
	if !isName(name) {
		return "", fmt.Errorf("${env:%s} does not name an environment variable: write a name of letters, digits and _", name)
	}
	if r.Env == nil {
		return "", fmt.Errorf("${env:%s}: the environment is not available here", name)
	}
	v, set := r.Env(name)
	switch {
	case v != "":
		return v, nil
	case hasFallback:
		return fallback, nil
	case !set:
		return "", fmt.Errorf("the environment variable %s is not set: set it, or write ${env:%s:-default}", name, name)
	}
	return "", nil
}

func (r Resolver) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("${file:%s} is not an absolute path: write ${file:/…}", path)
	}
	if r.ReadFile == nil {
		return "", fmt.Errorf("${file:%s}: files are not available here", path)
	}
	content, err := r.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("${file:%s}: %w", path, err)
	}
	text := strings.TrimSuffix(string(content), "\n")
	return strings.TrimSuffix(text, "\r"), nil
}

func isName(name string) bool {
	for i, c := range name {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
