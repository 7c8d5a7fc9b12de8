package sources

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/tidwall/gjson"

	"sluice/bus"
)

// pgForm is how a column's value is written in JSON.
type pgForm byte

const (
	pgText pgForm = iota
	pgNumber
	pgBool
	pgJSON
	pgTimestamp   // without a zone
	pgTimestampTZ // in UTC
	pgBytes
)

// pgFormOf is the form of a built-in type.
func pgFormOf(oid uint32) pgForm {
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.OIDOID:
		return pgNumber
	case pgtype.BoolOID:
		return pgBool
	case pgtype.JSONOID, pgtype.JSONBOID:
		return pgJSON
	case pgtype.TimestampOID:
		return pgTimestamp
	case pgtype.TimestamptzOID:
		return pgTimestampTZ
	case pgtype.ByteaOID:
		return pgBytes
	}
	return pgText
}

// pgColumn is a column of a table.
type pgColumn struct {
	name string
	key  bool   // part of the replica identity
	oid  uint32 // of its type
	form pgForm
}

// appendPgRow appends an object with the columns that only picks, or all when it is
// nil. What was not sent is left out.
func appendPgRow(dst []byte, columns []pgColumn, row []pgValue, only func(*pgColumn) bool) ([]byte, error) {
	dst = append(dst, '{')
	empty := true
	for i := range columns {
		c, v := &columns[i], row[i]
		if v.kind == 'u' || only != nil && !only(c) {
			continue
		}
		if !empty {
			dst = append(dst, ',')
		}
		empty = false
		dst = gjson.AppendJSONString(dst, c.name)
		dst = append(dst, ':')
		var err error
		if dst, err = appendPgValue(dst, c.form, v); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return append(dst, '}'), nil
}

var errPgText = errors.New("is not valid UTF-8: the database has no encoding (SQL_ASCII) or a damaged row")

// appendPgValue appends a value as PostgreSQL printed it, in its form. A value that
// the form has no place for, such as NaN or a timestamp before Christ, is a text.
func appendPgValue(dst []byte, form pgForm, v pgValue) ([]byte, error) {
	if v.kind == 'n' {
		return append(dst, "null"...), nil
	}
	if !utf8.Valid(v.text) {
		return nil, errPgText
	}
	switch form {
	case pgNumber:
		if isJSONNumber(v.text) {
			return append(dst, v.text...), nil
		}
	case pgBool:
		switch string(v.text) {
		case "t":
			return append(dst, "true"...), nil
		case "f":
			return append(dst, "false"...), nil
		}
	case pgJSON:
		if !bus.ValidJSON(v.text) {
			return nil, errors.New("is not JSON that can be an event: it is nested too deep, or PostgreSQL takes what RFC 8259 does not")
		}
		return append(dst, v.text...), nil
	case pgTimestamp, pgTimestampTZ:
		if text, ok := pgRFC3339(v.text, form == pgTimestampTZ); ok {
			return gjson.AppendJSONString(dst, text), nil
		}
	case pgBytes:
		if digits, ok := bytes.CutPrefix(v.text, []byte(`\x`)); ok {
			return appendPgBytes(dst, digits)
		}
	}
	return gjson.AppendJSONString(dst, unsafe.String(unsafe.SliceData(v.text), len(v.text))), nil
}

func isJSONNumber(text []byte) bool {
	return len(text) > 0 && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && gjson.ValidBytes(text)
}

func appendPgBytes(dst, digits []byte) ([]byte, error) {
	raw := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(raw, digits); err != nil {
		return nil, fmt.Errorf("is not a bytea in hex: %w", err)
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"'), nil
}

// pgRFC3339 turns 2026-01-02 03:04:05.6+00 into 2026-01-02T03:04:05.6Z. Without a
// zone it stays without one. It refuses what RFC 3339 cannot say.
func pgRFC3339(text []byte, zone bool) (string, bool) {
	const date = len("2006-01-02")
	if len(text) <= date || text[date] != ' ' {
		return "", false
	}
	s := string(text[:date]) + "T" + string(text[date+1:])
	layout := "2006-01-02T15:04:05.999999"
	if zone {
		layout += "Z07"
	}
	t, err := time.Parse(layout, s)
	switch {
	case err != nil:
		return "", false
	case !zone:
		return s, true
	}
	return t.UTC().Format(time.RFC3339Nano), true
}
