package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sluice/bus"
)

// readBody reads a whole body of limit bytes at most.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	if err != nil && !errors.As(err, &large) {
		return nil, refuse(http.StatusBadRequest, "the request did not arrive whole: send it again")
	}
	return body, err
}

// decode reads a JSON object into dst, and refuses what it does not know: a
// misspelt filter would choose everything. An empty body is an empty object.
func decode(w http.ResponseWriter, r *http.Request, limit int64, dst any) error {
	if _, err := queryOf(r); err != nil {
		return err
	}
	body, err := readBody(w, r, limit)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(dst)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "the body is not what this URL takes: %s", jsonFault(err))
	}
	return nil
}

func jsonFault(err error) string {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is not JSON: %s at byte %d", syntax, syntax.Offset)
	case errors.As(err, &wrong):
		return fmt.Sprintf("%s wants %s and got a %s", wrong.Field, wrong.Type, wrong.Value)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends in the middle of the object"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// query is the query of a request. Like a body, it must not hold what is unknown.
type query struct{ url.Values }

func queryOf(r *http.Request, known ...string) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, refuse(http.StatusBadRequest, "the query is not well-formed: %s", err)
	}
	for name, all := range values {
		if len(known) == 0 {
			return query{}, refuse(http.StatusBadRequest, "there is no parameter %q: this URL takes none; what a POST is to do stands in its body", name)
		}
		if !slices.Contains(known, name) {
			return query{}, refuse(http.StatusBadRequest, "there is no parameter %q: there are %s", name, strings.Join(known, ", "))
		}
		if len(all) > 1 && name != "id" && name != "stage" {
			return query{}, refuse(http.StatusBadRequest, "%s is given %d times: give it once", name, len(all))
		}
	}
	return query{values}, nil
}

// bare is what takes no query. One that is not looked at would seem to be obeyed.
func bare(do func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := queryOf(r); err != nil {
			return err
		}
		return do(w, r)
	}
}

// limit is how many items are asked for.
func (q query) limit() (int, error) {
	text := q.Get("limit")
	if text == "" {
		return defaultItems, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxItems {
		return 0, refuse(http.StatusBadRequest, "limit: %q is not a number from 1 to %d", text, maxItems)
	}
	return n, nil
}

// from is where a list goes on.
func (q query) from() (bus.Position, error) {
	text := q.Get("from")
	if text == "" {
		return bus.Position{}, nil
	}
	pos, err := bus.ParsePosition(text)
	if err != nil {
		return pos, refuse(http.StatusBadRequest, "from: %s: give what an earlier answer had as next", err)
	}
	return pos, nil
}
