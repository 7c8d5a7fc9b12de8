package cli

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"sluice/config"
)

func newReloadCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the server read its config again.",
		Long: `Make the server read its config again. A config with faults or failing tests is refused
and the old one runs on: exit code 3.`,
		Example: "  sluice reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.post(c.Context(), "api/v1/reload", nil)
			if err != nil {
				return err
			}
			return e.reloaded(doc)
		},
	}
}

func (e *env) reloaded(doc json.RawMessage) error {
	r, err := decode[struct {
		OK      bool
		Changes json.RawMessage
		Error   string
	}](doc, nil)
	if err != nil {
		return err
	}
	if e.json() {
		err = e.printJSON(doc)
	} else if r.OK {
		e.printf("reloaded: %s\n", changes(r.Changes))
	}
	if err == nil && !r.OK {
		err = &exitError{exitInvalid, errors.New("the new config was refused and the old one runs on: " + r.Error)}
	}
	return err
}

// changes is what a reload changed, in words.
func changes(doc json.RawMessage) string {
	var text string
	if json.Unmarshal(doc, &text) == nil && text != "" {
		return text
	}
	var c config.Changes
	if json.Unmarshal(doc, &c) == nil {
		return c.String()
	}
	return string(doc)
}
