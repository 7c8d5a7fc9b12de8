package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

// What --output takes.
const (
	formatTable = "table"
	formatJSON  = "json"
)

func (e *env) json() bool { return e.output == formatJSON }

// printJSON prints v, or a document of the API as it came, indented.
func (e *env) printJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = e.stdout.Write(calm(out.Bytes()))
	return err
}

// calm escapes what JSON lets stand as it is and some terminals obey: U+007F to U+009F.
func calm(doc []byte) []byte {
	steers := func(r rune) bool { return r >= 0x7f && r < 0xa0 }
	if bytes.IndexFunc(doc, steers) < 0 {
		return doc
	}
	out := make([]byte, 0, len(doc)+16)
	for _, r := range string(doc) {
		if steers(r) { // it is in a text: nothing else of JSON has such characters
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// printf prints a part of the result. An error stays until the verb has ended.
func (e *env) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(e.stdout, format, args...); err != nil && e.unprinted == nil {
		e.unprinted = err
	}
}

// note tells something that is not a result.
func (e *env) note(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintln(e.stderr, printable(fmt.Sprintf(format, args...)))
	}
}

// complain tells what went wrong with one of many things, and goes on.
func (e *env) complain(format string, args ...any) {
	fmt.Fprintln(e.stderr, "sluice: "+printable(fmt.Sprintf(format, args...)))
}

// isTerminal tells whether somebody sits at the other end of a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// paint tells the colours to use on w.
func (e *env) paint(w io.Writer) paint {
	noColor, _ := e.lookupEnv("NO_COLOR") // no-color.org: any text that is not empty
	kind, _ := e.lookupEnv("TERM")
	return paint(!e.noColor && noColor == "" && kind != "dumb" && e.terminal(w))
}

// paint colours text, when it is true.
type paint bool

func (p paint) code(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string   { return p.code("1", s) }
func (p paint) dim(s string) string    { return p.code("2", s) }
func (p paint) red(s string) string    { return p.code("31", s) }
func (p paint) green(s string) string  { return p.code("32", s) }
func (p paint) yellow(s string) string { return p.code("33", s) }
func (p paint) cyan(s string) string   { return p.code("36", s) }

// table aligns columns. Cells are shown whole, on one line each.
type table struct {
	rows   [][]string
	indent string
}

func newTable(heads ...string) *table {
	t := &table{}
	if len(heads) > 0 {
		t.rows = append(t.rows, heads)
	}
	return t
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = oneLine(fmt.Sprint(cell))
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i, cell := range row {
			if cell == "" && i < len(row)-1 {
				row[i] = "-" // an empty cell looks like a shifted column
			}
		}
		line := t.indent + strings.TrimRight(strings.Join(row, "\t"), "\t ")
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return out.Flush()
}

// oneLine keeps line breaks, tabs and what else moves a cursor out of text that
// came from outside.
func oneLine(s string) string {
	clean := func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}
	return strings.Map(clean, s)
}

// printable is text without what would steer a terminal.
func printable(text string) string {
	out := make([]rune, 0, len(text))
	for _, r := range text {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

// printOr prints a document of the API, unless there was an error.
func (e *env) printOr(doc json.RawMessage, err error) error {
	if err != nil {
		return err
	}
	return e.printJSON(doc)
}

// compact is a document without line breaks and indentation.
func compact(doc json.RawMessage) []byte {
	var out bytes.Buffer
	if json.Compact(&out, doc) != nil {
		return doc
	}
	return out.Bytes()
}
