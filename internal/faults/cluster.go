package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/balancer"
)

// drain is how long a node that is to stop goes on serving: some of the balancer's
// checks.
const drain = 2 * time.Second

// sweepInterval is how often nodes look for expired sessions: often, so that they
// meet.
const sweepInterval = 2 * time.Second

// A cluster is a database and nodes on it, behind a balancer that sticks to nothing.
type cluster struct {
	db      *database
	members []*member
	front   string // the balancer's URL
	began   time.Time
	strict  bool

	balancer *balancer.Balancer
	stop     func()
	serving  chan error
	turn     atomic.Int64

	mu   sync.Mutex // guards what follows
	ends []ending
}

// An ending is a session's end as a node has announced it.
type ending struct{ node, id, app, cause string }

// startCluster starts nodes on a database.
func startCluster(ctx context.Context, db *database, binary, dir string, nodes int, strict bool) (c *cluster, err error) {
	c = &cluster{db: db, strict: strict, began: time.Now(), serving: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for i := range nodes {
		m := &member{name: fmt.Sprintf("node%d", i+1), binary: binary, ended: c.announced}
		if m.address, err = freeAddress(); err != nil {
			return c, err
		}
		m.url = "http://" + m.address
		m.log = filepath.Join(dir, m.name+".log")
		var addresses []string
		for j := range db.servers {
			server := db.servers[j]
			if db.title == "galera" { // each node has a server of its own to begin with
				server = db.servers[(i+j)%len(db.servers)]
			}
			p, err := newProxy(server)
			if err != nil {
				return c, err
			}
			m.network = append(m.network, p)
			addresses = append(addresses, p.address())
		}
		if len(db.servers) > 0 {
			if err := db.user(ctx, m.name); err != nil {
				return c, err
			}
		}
		mode := "causal"
		if strict {
			mode = "strict"
		}
		m.args = []string{"serve", "--node", m.name, "--listen", m.address, "--database", db.url(m.name, addresses),
			"--log-ends", "--drain", drain.String(), "--sweep", sweepInterval.String(), "--freshness", mode}
		c.members = append(c.members, m)
		if err := m.start(ctx, 0); err != nil {
			return c, err
		}
	}
	return c, c.listen(dir)
}

// listen starts the balancer.
func (c *cluster) listen(dir string) error {
	log, err := os.Create(filepath.Join(dir, "balancer.log"))
	if err != nil {
		return err
	}
	c.balancer, err = balancer.New(&balancer.Config{
		CheckPath: "/healthz", Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	var nodes []balancer.Node
	for _, m := range c.members {
		nodes = append(nodes, balancer.Node{Name: m.name, Address: m.address})
	}
	c.balancer.SetNodes(nodes)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.front = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = func() { cancel(); log.Close() }
	go func() { c.serving <- c.balancer.Serve(ctx, listener) }()
	return nil
}

// clock is the time since the cluster began.
func (c *cluster) clock() time.Duration { return time.Since(c.began) }

func (c *cluster) announced(node, line string) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, ending{node, fields[0], fields[1], fields[2]})
}

// endings returns what the nodes have announced so far.
func (c *cluster) endings() []ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]ending(nil), c.ends...)
}

// next returns members in turn.
func (c *cluster) next() *member {
	return c.members[int(c.turn.Add(1))%len(c.members)]
}

// recover waits until every node answers, and a session can be stored and read back
// through each.
func (c *cluster) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	browser := newClient(false, nil)
	defer browser.close()
	browser.wait = 10 * time.Second
	for _, m := range c.members {
		for {
			var held cookies
			a := browser.do(ctx, c.clock, "PUT", m.url+"/api/attributes/a", `"back"`, held)
			if a.ok() {
				a.set.apply(&held)
				if a = browser.do(ctx, c.clock, "GET", m.url+"/api/attributes/a", "", held); a.ok() {
					break
				}
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				m.dump()
				return fmt.Errorf("%s does not recover, see %s: status %d %s: %w", m.name, m.log, a.status, a.body, errors.Join(a.err, ctx.Err()))
			}
		}
	}
	return nil
}

// shutdown ends the nodes in good order and says what was wrong with their ends.
func (c *cluster) shutdown(ctx context.Context) error {
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() { errs[i] = m.terminate(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close ends all that runs, however it runs.
func (c *cluster) close() error {
	if c.stop != nil {
		c.stop()
		if err := <-c.serving; err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	var errs []error
	for _, m := range c.members {
		if p, _, _ := m.now(); p != nil {
			p.cmd.Process.Kill()
			<-p.ended
		}
		for _, p := range m.network {
			p.close()
		}
		errs = append(errs, c.db.dropUser(context.Background(), m.name))
	}
	return errors.Join(errs...)
}
