package mysql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

// connectTimeout bounds an attempt to connect to one of several servers, so that one
// that is switched off does not use up the time for the others.
const connectTimeout = 2 * time.Second

// A Connector connects to the one of several servers that accepts writes: a primary
// and its replicas, or the nodes of a Galera cluster.
//
//	connector, err := mysql.NewConnector(first, second, third)
//	…
//	db := sql.OpenDB(connector)
//
// It begins with the server that it connected to last, at first with the first, and
// goes on in order. It passes over servers that do not answer, are read-only, or
// have lost their cluster. So processes that name the servers in one order all use
// the same one, until it fails. It is safe for concurrent use. Use [NewConnector]; the
// zero Connector is not usable.
type Connector struct {
	servers []server

	mu    sync.Mutex // guards first
	first int        // the server to begin with
}

type server struct {
	addr    string
	timeout time.Duration
	driver.Connector
}

var _ driver.Connector = (*Connector)(nil)

// NewConnector returns a Connector for the servers of cfgs, one at least, which it
// copies. Timeout bounds not only the dial but all that it takes until a server is known
// to accept writes. Zero or less becomes 2 s: all servers together must be tried within the
// Backend's StatementTimeout.
func NewConnector(cfgs ...*mysql.Config) (*Connector, error) {
	if len(cfgs) == 0 {
		return nil, errors.New("mysql: no server to connect to")
	}
	c := new(Connector)
	for _, cfg := range cfgs {
		cfg = cfg.Clone()
		if cfg.Timeout <= 0 {
			cfg.Timeout = connectTimeout
		}
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", cfg.Addr, err)
		}
		c.servers = append(c.servers, server{cfg.Addr, cfg.Timeout, connector})
	}
	return c, nil
}

// Driver implements [driver.Connector].
func (c *Connector) Driver() driver.Driver { return c.servers[0].Driver() }

// Connect implements [driver.Connector]. Its error tells of each server why not.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	var errs []error
	for i := range c.servers {
		n := (first + i) % len(c.servers)
		conn, err := c.servers[n].connect(ctx)
		if err == nil {
			c.mu.Lock()
			c.first = n
			c.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", c.servers[n].addr, err))
	}
	return nil, errors.Join(errs...)
}

// connect returns a connection that can write. The driver's own timeout ends with the
// dial, which a server that is frozen still answers: its kernel does.
func (s server) connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := writable(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// writable asks a server. A node of Galera that has lost its cluster refuses to answer.
func writable(ctx context.Context, conn driver.Conn) error {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, "SELECT CAST(@@global.read_only AS CHAR)", nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	value := make([]driver.Value, 1)
	if err := rows.Next(value); err != nil {
		return err
	}
	// To the end, or the connection is not ready for the next statement.
	if err := rows.Next(make([]driver.Value, 1)); !errors.Is(err, io.EOF) {
		return cmp.Or(err, errors.New("more than one read_only"))
	}
	if text := fmt.Sprintf("%s", value[0]); text != "0" && text != "OFF" {
		return fmt.Errorf("read_only is %s", text)
	}
	return nil
}
