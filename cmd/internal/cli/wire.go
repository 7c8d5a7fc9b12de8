package cli

import (
	"encoding/json"
	"time"
)

// The documents of the API, as far as the tables show them. The jobs are
// dispatch.Job.

type sinkDoc struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	State string `json:"state"`

	ConfigVersion string `json:"config_version"`
	Hold          *struct {
		Reason string    `json:"reason"`
		Note   string    `json:"note"`
		Since  time.Time `json:"since"`
	} `json:"hold"`
	Concurrency      int       `json:"concurrency"`
	Queued           int       `json:"queued"`
	InFlight         int       `json:"in_flight"`
	Backlog          int       `json:"backlog"`
	OldestAgeSeconds float64   `json:"oldest_age_seconds"`
	Retries          int       `json:"retries"`
	DeadLetters      int       `json:"dead_letters"`
	Delivered        int64     `json:"delivered"`
	LastOK           time.Time `json:"last_ok"`
	LastError        string    `json:"last_error"`
	LastErrorAt      time.Time `json:"last_error_at"`
	Connection       *struct {
		State string    `json:"state"`
		Error string    `json:"error"`
		Since time.Time `json:"since"`
	} `json:"connection"`
}

type ruleDoc struct {
	Name      string          `json:"name"`
	To        []string        `json:"to"`
	Pattern   json.RawMessage `json:"pattern"`
	Where     string          `json:"where"`
	Matches   int64           `json:"matches"`
	LastMatch time.Time       `json:"last_match"`

	WhereRejections int64  `json:"where_rejections"`
	WhereErrors     int64  `json:"where_errors"`
	LastWhereError  string `json:"last_where_error"`
}

type deadLetterDoc struct {
	ID            string          `json:"id"`
	DeliveryID    string          `json:"delivery_id"`
	Source        string          `json:"source"`
	Sink          string          `json:"sink"`
	Rule          string          `json:"rule"`
	Reason        string          `json:"reason"`
	ConfigVersion string          `json:"config_version"`
	Accepted      time.Time       `json:"accepted"`
	Died          time.Time       `json:"died"`
	Attempts      []attemptDoc    `json:"attempts"`
	Event         json.RawMessage `json:"event"`
}

type attemptDoc struct {
	At              time.Time `json:"at"`
	DurationSeconds float64   `json:"duration_seconds"`
	Status          int       `json:"status"`
	Class           string    `json:"class"`
	Error           string    `json:"error"`
	Answer          string    `json:"answer"`
	AnswerBase64    string    `json:"answer_base64"`
}

type storedDoc struct {
	Position string          `json:"position"`
	Accepted time.Time       `json:"accepted"`
	Event    json.RawMessage `json:"event"`
}

// whereMissDoc is a rule whose where kept an event from it.
type whereMissDoc struct {
	Rule  string `json:"rule"`
	Error string `json:"error"`
}

type noticeDoc struct {
	At              time.Time       `json:"at"`
	Stage           string          `json:"stage"`
	Event           json.RawMessage `json:"event"`
	Position        string          `json:"position"`
	Rules           []string        `json:"rules"`
	WhereMisses     []whereMissDoc  `json:"where_misses"`
	Rule            string          `json:"rule"`
	Sink            string          `json:"sink"`
	Attempt         int             `json:"attempt"`
	Status          int             `json:"status"`
	Class           string          `json:"class"`
	Error           string          `json:"error"`
	DurationSeconds float64         `json:"duration_seconds"`
	AfterSeconds    float64         `json:"after_seconds"`
	Reason          string          `json:"reason"`
	Missed          int64           `json:"missed"`
}

type statusDoc struct {
	Version       string    `json:"version"`
	ConfigVersion string    `json:"config_version"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Listen        string    `json:"listen"`
	Draining      bool      `json:"draining"`
	Config        struct {
		Path         string    `json:"path"`
		LastReload   time.Time `json:"last_reload"`
		LastReloadOK bool      `json:"last_reload_ok"`
		Error        string    `json:"error"`
		NeedRestart  []string  `json:"need_restart"`
	} `json:"config"`
	Store struct {
		Dir        string `json:"dir"`
		Bytes      int64  `json:"bytes"`
		LimitBytes int64  `json:"limit_bytes"`
		FreeBytes  int64  `json:"free_bytes"`
		Events     struct {
			First  uint64    `json:"first"`
			Last   uint64    `json:"last"`
			Oldest time.Time `json:"oldest"`
		} `json:"events"`
	} `json:"store"`
	Balance      balanceDoc `json:"balance"`
	Conservation struct {
		OK         bool      `json:"ok"`
		Deliveries int64     `json:"deliveries"`
		Events     int64     `json:"events"`
		Checked    time.Time `json:"checked"`
		Since      time.Time `json:"since"`
	} `json:"conservation"`
	Unsettled int64 `json:"unsettled"`
}

type balanceDoc struct {
	Entered   int64 `json:"entered"`
	Delivered int64 `json:"delivered"`
	Dead      int64 `json:"dead"`
	Discarded int64 `json:"discarded"`
	Damaged   int64 `json:"damaged"`
	Open      int64 `json:"open"`
	Lost      int64 `json:"lost"`
	Queued    int64 `json:"queued"`
	Running   int64 `json:"running"`
	Spilling  int64 `json:"spilling"`
	Backlog   int64 `json:"backlog"`
	Retries   int64 `json:"retries"`
}

// brief is the part of an event that a line of a table shows.
type brief struct {
	ID      string `json:"id"`
	Source  string `json:"source"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
}

// briefOf reads what it can: an event that the server gave out is one.
func briefOf(event json.RawMessage) brief {
	var b brief
	_ = json.Unmarshal(event, &b)
	return b
}
