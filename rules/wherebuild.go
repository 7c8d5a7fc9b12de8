package rules

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/antlr/antlr4/runtime/Go/antlr"
	cesql "github.com/cloudevents/sdk-go/sql/v2"
	cesqlexpr "github.com/cloudevents/sdk-go/sql/v2/expression"
	"github.com/cloudevents/sdk-go/sql/v2/gen"
)

// buildWhere makes of a syntax tree without faults what evaluates it. The library's
// own visitor would do, but for LIKE: see like.
func buildWhere(tree antlr.Tree) (expr cesql.Expression, err error) {
	defer recovered(&err)
	switch n := tree.(type) {
	case *gen.IntegerLiteralContext:
		i, err := strconv.ParseInt(n.GetText(), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s is no integer of 32 bits", n.GetText())
		}
		return cesqlexpr.NewLiteralExpression(int32(i)), nil
	case *gen.BooleanLiteralContext:
		return cesqlexpr.NewLiteralExpression(n.TRUE() != nil), nil
	case *gen.StringLiteralContext:
		return cesqlexpr.NewLiteralExpression(literalText(n)), nil
	case *gen.IdentifierContext:
		return cesqlexpr.NewIdentifierExpression(strings.ToLower(n.GetText())), nil
	case *gen.ExistsExpressionContext:
		return cesqlexpr.NewExistsExpression(strings.ToLower(n.Identifier().GetText())), nil
	}
	parts, err := buildParts(tree)
	if err != nil {
		return nil, err
	}
	return combine(tree, parts), nil
}

// buildParts makes the expressions that one is made of, in their order.
func buildParts(tree antlr.Tree) (parts []cesql.Expression, err error) {
	for _, child := range tree.GetChildren() {
		switch n := child.(type) {
		case antlr.TerminalNode, *gen.FunctionIdentifierContext:
			continue
		case *gen.StringLiteralContext:
			if _, pattern := tree.(*gen.LikeExpressionContext); pattern {
				continue
			}
		case *gen.SetExpressionContext, *gen.FunctionParameterListContext:
			more, err := buildParts(n)
			if err != nil {
				return nil, err
			}
			parts = append(parts, more...)
			continue
		}
		part, err := buildWhere(child)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// combine makes an expression of its parts. What only wraps another is that.
func combine(tree antlr.Tree, parts []cesql.Expression) cesql.Expression {
	switch n := tree.(type) {
	case *gen.LikeExpressionContext:
		pattern := n.StringLiteral().(*gen.StringLiteralContext) //nolint:forcetypeassert // the grammar has no other
		return negated(n.NOT(), &like{parts[0], parseLike(literalText(pattern))})
	case *gen.InExpressionContext:
		return negated(n.NOT(), cesqlexpr.NewInExpression(parts[0], parts[1:]))
	case *gen.UnaryLogicExpressionContext:
		return cesqlexpr.NewNotExpression(parts[0])
	case *gen.UnaryNumericExpressionContext:
		return cesqlexpr.NewNegateExpression(parts[0])
	case *gen.FunctionInvocationExpressionContext:
		return cesqlexpr.NewFunctionInvocationExpression(strings.ToUpper(n.FunctionIdentifier().GetText()), parts)
	}
	if len(parts) == 1 {
		return parts[0]
	}
	sign := tree.GetChild(1).(antlr.TerminalNode) //nolint:forcetypeassert // what is left has two sides
	return twoSided(sign.GetSymbol().GetTokenType())(parts[0], parts[1])
}

// twoSided is what makes the expression of an operator with two sides.
func twoSided(sign int) func(left, right cesql.Expression) cesql.Expression {
	switch sign {
	case gen.CESQLParserLexerSTAR:
		return cesqlexpr.NewMultiplicationExpression
	case gen.CESQLParserLexerDIVIDE:
		return cesqlexpr.NewDivisionExpression
	case gen.CESQLParserLexerMODULE:
		return cesqlexpr.NewModuleExpression
	case gen.CESQLParserLexerPLUS:
		return cesqlexpr.NewSumExpression
	case gen.CESQLParserLexerMINUS:
		return cesqlexpr.NewDifferenceExpression
	case gen.CESQLParserLexerEQUAL:
		return cesqlexpr.NewEqualExpression
	case gen.CESQLParserLexerLESS:
		return cesqlexpr.NewLessExpression
	case gen.CESQLParserLexerLESS_OR_EQUAL:
		return cesqlexpr.NewLessOrEqualExpression
	case gen.CESQLParserLexerGREATER:
		return cesqlexpr.NewGreaterExpression
	case gen.CESQLParserLexerGREATER_OR_EQUAL:
		return cesqlexpr.NewGreaterOrEqualExpression
	case gen.CESQLParserLexerAND:
		return cesqlexpr.NewAndExpression
	case gen.CESQLParserLexerOR:
		return cesqlexpr.NewOrExpression
	case gen.CESQLParserLexerXOR:
		return cesqlexpr.NewXorExpression
	}
	return cesqlexpr.NewNotEqualExpression // != and <>
}

// literalText is what a text in quotes says.
func literalText(n *gen.StringLiteralContext) string {
	text := n.GetText()
	quote, inner := text[:1], text[1:len(text)-1]
	return strings.ReplaceAll(inner, `\`+quote, quote)
}

// negated is NOT of an expression where that word stands.
func negated(not antlr.TerminalNode, e cesql.Expression) cesql.Expression {
	if not == nil {
		return e
	}
	return cesqlexpr.NewNotExpression(e)
}
