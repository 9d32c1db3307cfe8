package faults

import (
	"io"
	"net"
	"sync"
)

// A proxy is the network between a node and the database.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex // guards what follows
	state   netState
	changed chan struct{} // closed and replaced when state changes
	conns   map[net.Conn]bool
}

// A netState is what a network does with bytes.
type netState int

const (
	forwarding netState = iota
	cut                 // connections break, new ones are refused
	stalled             // nothing arrives and nothing says so
	closed
)

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// set changes what the network does. Bytes that were held back while it was stalled
// arrive late.
func (p *proxy) set(s netState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
	if s == cut || s == closed {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

func (p *proxy) close() {
	p.listener.Close()
	p.set(closed)
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.connect(client) })
	}
}

func (p *proxy) connect(client net.Conn) {
	defer client.Close()
	if !p.passable() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.state == cut || p.state == closed {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var wg sync.WaitGroup
	wg.Go(func() { p.forward(client, server) })
	wg.Go(func() { p.forward(server, client) })
	wg.Wait()
}

// passable waits while the network is stalled, and reports whether it works then.
func (p *proxy) passable() bool {
	for {
		p.mu.Lock()
		state, changed := p.state, p.changed
		p.mu.Unlock()
		if state != stalled {
			return state == forwarding
		}
		<-changed
	}
}

func (p *proxy) forward(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.passable() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				p.passable() // an end is late too
			}
			return
		}
	}
}
