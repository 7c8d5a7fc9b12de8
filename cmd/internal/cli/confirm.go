package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// confirm asks a question that must be answered with yes before something is
// lost.
func (e *env) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !e.terminal(e.stdin) {
		return usagef("there is nobody to ask: write --yes if you mean it")
	}
	fmt.Fprint(e.stderr, question+" [y/N] ")
	answer, err := bufio.NewReader(e.input(ctx)).ReadString('\n')
	if ctx.Err() != nil {
		return errInterrupted
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Fprintln(e.stderr)
	}
	return fmt.Errorf("not confirmed: nothing was changed")
}
