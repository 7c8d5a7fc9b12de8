package cli

import (
	"encoding/json"
	"errors"
	"net/http"

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
			var no *apiError
			if errors.As(err, &no) && no.Status == http.StatusUnprocessableEntity {
				doc, err = no.body, nil
			}
			if err != nil {
				return err
			}
			return e.reloaded(doc)
		},
	}
}

func (e *env) reloaded(doc json.RawMessage) error {
	r, err := decode[struct {
		OK          bool
		Changes     config.Changes
		NeedRestart []string `json:"need_restart"`
		Error       string
	}](doc, nil)
	if err != nil {
		return err
	}
	if e.json() {
		err = e.printJSON(doc)
	} else if r.OK {
		e.printf("reloaded: %s\n", r.Changes)
		if len(r.NeedRestart) > 0 {
			e.note("needs a restart to take effect: %s", join(r.NeedRestart, ""))
		}
	}
	if err == nil && !r.OK {
		err = &exitError{exitInvalid, errors.New("the new config was refused and the old one runs on: " + r.Error)}
	}
	return err
}
