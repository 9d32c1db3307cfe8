package faults

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// The shop's cookies over plain HTTP.
const (
	tokenCookie   = "session"
	versionCookie = "session-v-shop"
)

// cookies are what a client holds or presents: the values of its cookies, "" for
// none.
type cookies struct{ token, version string }

func (c cookies) header() string {
	var pairs []string
	if c.token != "" {
		pairs = append(pairs, tokenCookie+"="+c.token)
	}
	if c.version != "" {
		pairs = append(pairs, versionCookie+"="+c.version)
	}
	return strings.Join(pairs, "; ")
}

// told is the version that the cookies present, 0 if none.
func (c cookies) told() int64 {
	digits, _, _ := strings.Cut(c.version, ".")
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// unversioned are the cookies of a client that knows no version, whose every
// request asks the database.
func (c cookies) unversioned() cookies { return cookies{token: c.token} }

// route is the node that a sticky balancer sends the token's requests to.
func (c cookies) route() string {
	_, route, _ := strings.Cut(c.token, ".")
	return route
}

// set is what a response says about cookies: a value, or "" to remove it.
type set struct{ token, version *string }

func readSet(h http.Header) (s set) {
	for _, c := range (&http.Response{Header: h}).Cookies() {
		value := c.Value
		if c.MaxAge < 0 {
			value = ""
		}
		switch c.Name {
		case tokenCookie:
			s.token = &value
		case versionCookie:
			s.version = &value
		}
	}
	return s
}

// told is the version that the response tells, 0 if none.
func (s set) told() int64 {
	if s.version == nil {
		return 0
	}
	return cookies{version: *s.version}.told()
}

func (s set) apply(c *cookies) {
	if s.token != nil {
		c.token = *s.token
	}
	if s.version != nil {
		c.version = *s.version
	}
}

// A jar holds a browser's cookies for parallel requests. The zero jar is empty.
type jar struct {
	// latest keeps the newest version, whatever order responses arrive in. A
	// browser's jar does not: the response applied last wins.
	latest bool
	// shuffle, if not nil, applies what responses set late, out of order and twice.
	shuffle *rand.Rand

	mu   sync.Mutex // guards what follows, and shuffle
	held cookies
	late []set // not applied yet, or once more
}

// present returns the cookies for a request.
func (j *jar) present() cookies {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.shuffle != nil && len(j.late) > 0 && j.shuffle.IntN(3) > 0 {
		i := j.shuffle.IntN(len(j.late))
		j.late[i].apply(&j.held)
		if j.shuffle.IntN(3) > 0 { // else it comes once more
			j.late = append(j.late[:i], j.late[i+1:]...)
		}
	}
	return j.held
}

// receive takes what a response sets.
func (j *jar) receive(s set) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s == (set{}) {
		return
	}
	if j.shuffle != nil && j.shuffle.IntN(4) > 0 {
		j.late = append(j.late, s)
		return
	}
	if j.latest && s.version != nil && *s.version != "" && s.told() < j.held.told() {
		s.version = nil
	}
	s.apply(&j.held)
}
