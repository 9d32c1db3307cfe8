package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A client has one session. It is used by one goroutine at a time.
type client interface {
	// do requests a page. Answers other than 200 are errors.
	do(path string) error
	// body is the last answer's, valid until the next.
	body() []byte
	// copyTo gives another client the same cookies: a second tab.
	copyTo(client)
}

// A jar holds a client's cookies, with as little ado as possible.
type jar struct {
	names, values []string
	header        string // all of them, as a request carries them
}

// set does what a Set-Cookie header says, as far as these servers use it.
func (j *jar) set(setCookie string) {
	pair, attributes, _ := strings.Cut(setCookie, ";")
	name, value, _ := strings.Cut(pair, "=")
	i := slices.Index(j.names, name)
	switch expired := strings.Contains(attributes, "Max-Age=0"); {
	case i < 0 && !expired:
		j.names, j.values = append(j.names, name), append(j.values, value)
	case i >= 0 && expired:
		j.names, j.values = slices.Delete(j.names, i, i+1), slices.Delete(j.values, i, i+1)
	case i >= 0:
		j.values[i] = value
	}
	var b []byte
	for i := range j.names {
		if i > 0 {
			b = append(b, "; "...)
		}
		b = append(b, j.names[i]...)
		b = append(b, '=')
		b = append(b, j.values[i]...)
	}
	j.header = string(b)
}

func (j *jar) clone() jar {
	return jar{names: append([]string(nil), j.names...), values: append([]string(nil), j.values...), header: j.header}
}

// An inProcess client calls a handler: no network, and nothing of net/http but its
// types.
type inProcess struct {
	jar
	handler http.Handler
	request *http.Request
	cookie  []string // the request's Cookie header
	header  http.Header
	status  int
	answer  []byte
}

func newInProcess(h http.Handler) *inProcess {
	c := &inProcess{handler: h, header: make(http.Header, 8), answer: make([]byte, 0, 256)}
	c.request = &http.Request{
		Method: "GET", URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host: "shop.example", Header: http.Header{"Accept": {"*/*"}}, Body: http.NoBody,
	}
	return c
}

func (c *inProcess) Header() http.Header    { return c.header }
func (c *inProcess) WriteHeader(status int) { c.status = status }
func (c *inProcess) body() []byte           { return c.answer }
func (c *inProcess) copyTo(to client)       { t := to.(*inProcess); t.jar = c.jar.clone(); t.carry() }

func (c *inProcess) Write(p []byte) (int, error) {
	c.answer = append(c.answer, p...)
	return len(p), nil
}

// carry puts the cookies into the request.
func (c *inProcess) carry() {
	if len(c.names) == 0 {
		delete(c.request.Header, "Cookie")
		return
	}
	c.cookie = append(c.cookie[:0], c.jar.header)
	c.request.Header["Cookie"] = c.cookie
}

func (c *inProcess) do(path string) error {
	clear(c.header)
	c.status, c.answer = http.StatusOK, c.answer[:0]
	c.request.URL.Path = path
	// A new request each time, as a server's are, with a context that ends with it.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.handler.ServeHTTP(c, c.request.WithContext(ctx))
	if c.status != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", path, c.status, c.answer)
	}
	if cookies := c.header["Set-Cookie"]; len(cookies) > 0 {
		for _, cookie := range cookies {
			c.set(cookie)
		}
		c.carry()
	}
	return nil
}

// An overTCP client speaks just enough HTTP/1.1 to keep one connection busy, so
// that little of the time goes into the client.
type overTCP struct {
	jar
	conn    net.Conn
	in      *bufio.Reader
	path    string // that request is for
	request []byte
	answer  []byte
}

func newOverTCP(addr string) (*overTCP, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &overTCP{conn: conn, in: bufio.NewReaderSize(conn, 4096)}, nil
}

func (c *overTCP) body() []byte     { return c.answer }
func (c *overTCP) copyTo(to client) { t := to.(*overTCP); t.jar, t.path = c.jar.clone(), "" }

func (c *overTCP) do(path string) error {
	if c.path != path {
		c.path = path
		c.request = fmt.Appendf(c.request[:0], "GET %s HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n", path)
		if c.jar.header != "" {
			c.request = append(append(append(c.request, "Cookie: "...), c.jar.header...), "\r\n"...)
		}
		c.request = append(c.request, "\r\n"...)
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if v, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		} else if v, found := bytes.CutPrefix(line, []byte("Set-Cookie: ")); found {
			c.set(string(v))
			c.path = ""
		}
	}
	if length < 0 {
		return errors.New("answer without Content-Length")
	}
	if cap(c.answer) < length {
		c.answer = make([]byte, length)
	}
	c.answer = c.answer[:length]
	if _, err := io.ReadFull(c.in, c.answer); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: %s", path, c.answer)
	}
	return nil
}
