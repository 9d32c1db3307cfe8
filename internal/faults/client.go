package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// patience is how long a client waits for an answer: longer than a node is
	// frozen, so that what a zombie answers is seen.
	patience = 30 * time.Second
	// hurry is how long an impatient one waits.
	hurry = 1500 * time.Millisecond
)

// A client sends requests over connections of its own.
type client struct {
	http *http.Client
	wait time.Duration
}

// newClient returns a client that keeps its connection, or opens one for each
// request. All its connections go where dial says.
func newClient(keep bool, dial func(ctx context.Context, network, address string) (net.Conn, error)) *client {
	t := &http.Transport{
		DisableKeepAlives: !keep, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		DisableCompression: true, DialContext: dial,
	}
	return &client{http: &http.Client{Transport: t}, wait: patience}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// An answer is a response, or why there is none.
type answer struct {
	status int
	body   []byte
	set    set
	date   time.Time // the server's clock
	err    error     // if there is no response
	hasty  bool      // the client waited shortly only
	began  time.Duration
	ended  time.Duration
}

// do sends one request. It is not repeated, whatever happens.
func (c *client) do(ctx context.Context, clock func() time.Duration, method, url, body string, held cookies) (a answer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.wait)
	defer cancel()
	a.began, a.hasty = clock(), c.wait == hurry
	defer func() { a.ended = clock() }()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		a.err = err
		return a
	}
	if h := held.header(); h != "" {
		req.Header.Set("Cookie", h)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.status, a.set = resp.StatusCode, readSet(resp.Header)
	a.date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if missing
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

func (a answer) ok() bool { return a.err == nil && a.status == http.StatusOK }

// outcome is what the answer tells of a write.
func (a answer) outcome() outcome {
	switch {
	case a.ok():
		return done
	case a.err == nil && a.status == http.StatusConflict:
		return undone // "nothing was saved"
	case a.refused():
		return undone
	}
	return unknown
}

// refused reports whether no connection came about.
func (a answer) refused() bool {
	op, ok := errors.AsType[*net.OpError](a.err)
	return ok && op.Op == "dial"
}

// gaveUp is what happens to an impatient client on a busy machine too: no fault of
// the nodes.
const gaveUp = "gave up"

// kind names what went wrong, "" if nothing did.
func (a answer) kind() string {
	var netErr net.Error
	switch {
	case a.ok():
		return ""
	case a.refused():
		return "refused"
	case errors.As(a.err, &netErr) && netErr.Timeout():
		if a.hasty {
			return gaveUp
		}
		return "timeout"
	case a.err != nil:
		return "connection lost"
	case a.status == http.StatusConflict:
		return "409"
	case a.status == http.StatusServiceUnavailable:
		return "503"
	}
	return "status " + http.StatusText(a.status)
}

// A view is what GET /api/session shows.
type view struct {
	Node       string                     `json:"node"`
	ID         string                     `json:"id"`
	New        bool                       `json:"new"`
	Principal  string                     `json:"principal"`
	Version    int64                      `json:"version"`
	Source     string                     `json:"source"`
	Attributes map[string]json.RawMessage `json:"attributes"`
}

// view decodes the answer to GET /api/session.
func (a answer) view() (v view, err error) {
	err = a.decode(&v)
	return v, err
}

func (a answer) decode(v any) error {
	if !a.ok() {
		return fmt.Errorf("status %d: %w", a.status, a.err)
	}
	return json.Unmarshal(a.body, v)
}

// state returns the attributes that are registers (strings) and counters.
func (v view) state() (state, error) {
	s := state{registers: make(map[string]string), counters: make(map[string]int64)}
	for name, raw := range v.Attributes {
		var err error
		if len(raw) > 0 && raw[0] == '"' {
			var text string
			err = json.Unmarshal(raw, &text)
			s.registers[name] = text
		} else {
			var n int64
			err = json.Unmarshal(raw, &n)
			s.counters[name] = n
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}
