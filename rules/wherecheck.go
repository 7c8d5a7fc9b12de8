package rules

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/antlr/antlr4/runtime/Go/antlr"
	"github.com/cloudevents/sdk-go/sql/v2/gen"
	sqlparser "github.com/cloudevents/sdk-go/sql/v2/parser"
	"github.com/cloudevents/sdk-go/sql/v2/runtime"
)

// checkWhere gives the syntax tree of an expression, or what is wrong with it and
// where. The library's own parser does not tell that well: it says nothing about
// places, prints characters that it does not know to standard error and goes on
// without them, and panics on some faults.
func checkWhere(text string) (antlr.Tree, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return nil, &WhereError{Msg: "is empty: write an expression such as subject LIKE 'a%', or leave where out"}
	case len(text) > maxWhereBytes:
		return nil, &WhereError{maxWhereBytes, fmt.Sprintf("has %d bytes: %d are the most", len(text), maxWhereBytes)}
	case !utf8.ValidString(text):
		return nil, &WhereError{Msg: "is not valid UTF-8"}
	}
	faults := &whereFaults{text: text}
	tokens := faults.tokens()
	if faults.first == nil {
		faults.limits(tokens)
	}
	var tree antlr.Tree
	if faults.first == nil {
		tree = faults.syntax()
	}
	if faults.first == nil {
		faults.functions(tokens)
	}
	if faults.first != nil {
		return nil, faults.first
	}
	return tree, nil
}

// whereFaults keeps the first fault of an expression; the others mostly follow
// from it.
type whereFaults struct {
	antlr.DefaultErrorListener
	text  string
	first *WhereError
}

func (f *whereFaults) add(at int, format string, args ...any) {
	if f.first == nil {
		f.first = &WhereError{f.offset(at), fmt.Sprintf(format, args...)}
	}
}

// offset is the byte offset of a character.
func (f *whereFaults) offset(char int) int {
	n := 0
	for i := range f.text {
		if n == char {
			return i
		}
		n++
	}
	return len(f.text)
}

// SyntaxError is antlr.ErrorListener.
func (f *whereFaults) SyntaxError(_ antlr.Recognizer, symbol any, line, column int, msg string, _ antlr.RecognitionException) {
	token, ok := symbol.(antlr.Token)
	switch {
	case !ok: // of the lexer, which knows lines and columns only
		f.add(f.charAt(line, column), "%s cannot stand here", shorten(strings.TrimPrefix(msg, "token recognition error at: ")))
	case token.GetTokenType() == antlr.TokenEOF:
		f.add(utf8.RuneCountInString(f.text), "the expression ends too early")
	default:
		f.add(token.GetStart(), "%s cannot stand here", shorten("'"+token.GetText()+"'"))
	}
}

// charAt is the character at a line, counted from 1, and column.
func (f *whereFaults) charAt(line, column int) int {
	before := strings.SplitAfter(f.text, "\n")[:line-1]
	return utf8.RuneCountInString(strings.Join(before, "")) + column
}

// shorten keeps messages to one line.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strings.Join(strings.Fields(s), " ")
}

func (f *whereFaults) lexer() *gen.CESQLParserLexer {
	l := gen.NewCESQLParserLexer(sqlparser.NewCaseChangingStream(antlr.NewInputStream(f.text), true))
	l.RemoveErrorListeners()
	l.AddErrorListener(f)
	return l
}

// tokens are the tokens without spaces and without the end.
func (f *whereFaults) tokens() []antlr.Token {
	var all []antlr.Token
	for _, t := range f.lexer().GetAllTokens() {
		if t.GetChannel() == antlr.TokenDefaultChannel {
			all = append(all, t)
		}
	}
	return all
}

// limits keeps an expression from being so large or so deep that the parser takes
// long over it.
func (f *whereFaults) limits(tokens []antlr.Token) {
	if len(tokens) > maxWhereTokens {
		f.add(tokens[maxWhereTokens].GetStart(), "has %d words and signs: %d are the most", len(tokens), maxWhereTokens)
	}
	depth, prefixes := 0, 0
	for _, t := range tokens {
		switch t.GetTokenType() {
		case gen.CESQLParserLexerLR_BRACKET:
			depth++
		case gen.CESQLParserLexerRR_BRACKET:
			depth--
		}
		switch t.GetTokenType() {
		case gen.CESQLParserLexerNOT, gen.CESQLParserLexerMINUS:
			prefixes++
		default:
			prefixes = 0
		}
		if depth+prefixes > maxWhereDepth {
			f.add(t.GetStart(), "is nested too deeply: %d levels are the most", maxWhereDepth)
		}
	}
}

func (f *whereFaults) syntax() (tree antlr.Tree) {
	p := gen.NewCESQLParserParser(antlr.NewCommonTokenStream(f.lexer(), antlr.TokenDefaultChannel))
	p.RemoveErrorListeners()
	p.AddErrorListener(f)
	var err error
	func() {
		defer recovered(&err)
		tree = p.Cesql()
	}()
	if err != nil {
		f.add(0, "%s", err)
	}
	return tree
}

// functions finds calls of what is no function, or not with so many arguments.
func (f *whereFaults) functions(tokens []antlr.Token) {
	for i, t := range tokens[:len(tokens)-1] {
		kind := t.GetTokenType()
		called := kind == gen.CESQLParserLexerIDENTIFIER || kind == gen.CESQLParserLexerFUNCTION_IDENTIFIER_WITH_UNDERSCORE
		if !called || tokens[i+1].GetTokenType() != gen.CESQLParserLexerLR_BRACKET {
			continue
		}
		args := arguments(tokens[i+2:])
		if runtime.ResolveFunction(t.GetText(), args) == nil {
			f.add(t.GetStart(), "there is no function %s that takes %d arguments", strings.ToUpper(t.GetText()), args)
		}
	}
}

// arguments counts those of a call, of which tokens begin after the bracket.
func arguments(tokens []antlr.Token) int {
	n, depth := 0, 0
	for i, t := range tokens {
		switch t.GetTokenType() {
		case gen.CESQLParserLexerLR_BRACKET:
			depth++
		case gen.CESQLParserLexerRR_BRACKET:
			if depth == 0 {
				if i > 0 {
					n++
				}
				return n
			}
			depth--
		case gen.CESQLParserLexerCOMMA:
			if depth == 0 {
				n++
			}
		}
	}
	return n
}
