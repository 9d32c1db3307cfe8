package balancer

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A tunnel is a client's connection and the one to its node.
type tunnel struct {
	client, node net.Conn
	idle         *time.Timer
	timeout      time.Duration
}

// forward copies in both directions until both have ended.
func (b *Balancer) forward(n *node, client, conn net.Conn) {
	t := &tunnel{client: client, node: conn, timeout: b.cfg.IdleTimeout}
	// Without traffic nobody is in the middle of anything, so that is no error.
	t.idle = time.AfterFunc(t.timeout, t.close)
	defer t.idle.Stop()
	b.mu.Lock()
	severed := b.severed
	if !severed {
		b.tunnels[t] = true
		n.taken++
		n.open++
	}
	b.mu.Unlock()
	if severed {
		t.cut()
		return
	}
	defer func() {
		t.close()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.tunnels, t)
		n.open--
	}()
	if b.cfg.Connected != nil {
		b.cfg.Connected(n.Node, client.RemoteAddr())
	}
	var request sync.WaitGroup
	request.Go(func() { t.copy(conn, client) })
	t.copy(client, conn)
	request.Wait()
}

// buffers are reused, because most connections carry little.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy forwards one direction. Its end is passed on as an end of that direction
// alone, because the other may have more to say; an error ends both.
func (t *tunnel) copy(to, from net.Conn) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := from.Read(buf[:])
		t.idle.Reset(t.timeout)
		if n > 0 {
			if _, writeErr := to.Write(buf[:n]); writeErr != nil {
				t.cut()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
				t.close()
			}
			return
		case err != nil:
			t.cut()
			return
		}
	}
}

// close ends both connections as their programs would.
func (t *tunnel) close() {
	t.client.Close()
	t.node.Close()
}

// cut resets both connections: whoever reads until the end must not take this for
// one, and believe that what it got was all.
func (t *tunnel) cut() {
	for _, conn := range []net.Conn{t.client, t.node} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
	}
}
