package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config/access"
)

func newTokenCommand(e *env) *cobra.Command {
	return newGroup("token", "Make tokens for callers, and the hashes that the config holds of them.", "  sluice token new",
		newTokenNewCommand(e), newTokenHashCommand(e))
}

// tokenDoc is a token with what the config may hold in its place.
type tokenDoc struct {
	Token string `json:"token,omitempty"`
	Hash  string `json:"hash"`
}

func newTokenNewCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "new",
		Short: "Make a token and its hash.",
		Long: `Make a random token and print it with its hash. The caller gets the token, which nobody can
see again; the config gets the hash, as hash: in an entry of server.auth.tokens or of the
auth of a source.`,
		Example: "  sluice token new",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			token := access.NewToken()
			if e.json() {
				return e.printJSON(tokenDoc{token, access.Hash(token)})
			}
			e.printf("token: %s\nhash: %s\n", token, access.Hash(token))
			return nil
		},
	}
}

// maxToken is the most that is read as a token: what stands in a header is shorter.
const maxToken = 8 << 10

func newTokenHashCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "hash",
		Short: "Print the hash of a token on stdin.",
		Long: `Read a token from stdin, without the newline at its end, and print the hash that the config
may hold in its place. It is not an argument: those are seen by others on the machine.`,
		Example: "  sluice token hash < token.txt",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(e.input(c.Context()), maxToken+1))
			if err != nil {
				return err
			}
			token := strings.TrimRight(string(text), "\r\n")
			switch {
			case len(token) > maxToken:
				return usagef("the token on stdin is longer than %d bytes, which no header holds", maxToken)
			case token == "" || strings.TrimSpace(token) != token || strings.ContainsAny(token, "\r\n"):
				return usagef("there is no token on stdin: give one, on one line and without spaces around it")
			}
			if e.json() {
				return e.printJSON(tokenDoc{Hash: access.Hash(token)})
			}
			e.printf("%s\n", access.Hash(token))
			return nil
		},
	}
}
