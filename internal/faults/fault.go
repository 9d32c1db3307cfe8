package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/balancer"
)

// A Fault is something that goes wrong, and how it is put right.
type Fault struct {
	Name string
	What string // in a few words, for the report

	// Hold is how long it lasts between the two.
	Hold time.Duration

	// Seamless says that no client may see an error through the balancer.
	Seamless bool

	// On says for which databases it exists; nil means all.
	On []string
	// OwnServer says that it needs a database server that the harness may restart.
	OwnServer bool
	// Once says that it cannot be undone.
	Once bool

	// inject returns how to heal it, nil if it has healed.
	inject func(ctx context.Context, r *run, rnd *rand.Rand) (heal func(context.Context) error, err error)
}

const (
	// longFreeze is longer than every timeout of a node: of statements, of the event
	// feed and of its registration.
	longFreeze = 11 * time.Second
	// outage is longer than the event feed's timeout, so that nodes notice.
	outage = 7 * time.Second
	// clockError is how far a wall clock is set off.
	clockError = 10 * time.Minute
)

// servers are the databases that nodes reach over a network.
var servers = slices.Concat([]string{"postgres", "mysql", "mariadb"}, Clusters)

// Faults are those that the harness injects, in the order of a short run.
func Faults() []Fault {
	return []Fault{
		{Name: "none", What: "nothing goes wrong", Hold: 4 * time.Second, Seamless: true, inject: nothing},
		{Name: "clock", What: "wall clocks of two nodes 10 minutes off, one each way, until they are restarted", Hold: 4 * time.Second, Seamless: true, inject: offClocks},
		{Name: "restart", What: "SIGTERM to each node in turn, restarted", Seamless: true, inject: rollingRestart},
		{Name: "kill", What: "kill -9 of each node in turn, restarted", inject: killInTurn},
		{Name: "freeze", What: "SIGSTOP of a node for longer than every timeout, then SIGCONT", Hold: longFreeze, inject: freeze},
		{Name: "doorbell", What: "doorbell connections ended, again and again", Hold: time.Second, Seamless: true, On: []string{"postgres", "standby"}, inject: loseDoorbells},
		{Name: "feed", What: "a node cannot read events", Hold: outage, Seamless: true, On: servers, inject: blind},
		{Name: "cut", What: "a node's connections to the database break", Hold: outage / 2, On: servers, inject: breakNetwork(cut)},
		{Name: "stall", What: "a node's network to the database swallows everything", Hold: outage, On: servers, inject: breakNetwork(stalled)},
		{Name: "lock", What: "another program holds the database's write lock", Hold: outage, On: []string{"sqlite"}, inject: holdLock},
		{Name: "db-restart", What: "the database is restarted", On: servers, OwnServer: true, inject: restartDatabase},
		{Name: "db-kill", What: "the database is killed with -9 and started again", On: servers, OwnServer: true, Hold: time.Second, inject: killDatabase},
		{Name: "failover", What: "of several database servers, the one that writes go to is killed with -9, for good", On: Clusters, Hold: 10 * time.Second, Once: true, inject: failOver},
	}
}

func nothing(context.Context, *run, *rand.Rand) (func(context.Context) error, error) { return nil, nil }

func pick(r *run, rnd *rand.Rand) *member { return r.members[rnd.IntN(len(r.members))] }

func rollingRestart(ctx context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	for _, m := range r.members {
		if err := r.replace(ctx, m, 0); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// replace restarts a node in good order, and gives the balancer time to see it back.
func (r *run) replace(ctx context.Context, m *member, offset time.Duration) error {
	if err := m.terminate(ctx); err != nil {
		return err
	}
	if err := m.start(ctx, offset); err != nil {
		return err
	}
	return r.balanced(ctx, m)
}

// balanced waits until the balancer sends connections to a node again.
func (r *run) balanced(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		for _, n := range r.balancer.Nodes() {
			if n.Name == m.name && n.State == balancer.Healthy {
				return nil
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("the balancer does not believe in %s: %w", m.name, err)
		}
	}
}

func killInTurn(ctx context.Context, r *run, rnd *rand.Rand) (func(context.Context) error, error) {
	for _, m := range r.members {
		m.kill()
		pause(ctx, time.Duration(rnd.Int64N(int64(time.Second))))
		if err := m.start(ctx, 0); err != nil {
			return nil, err
		}
		if err := r.balanced(ctx, m); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func freeze(ctx context.Context, r *run, rnd *rand.Rand) (func(context.Context) error, error) {
	m := pick(r, rnd)
	after, err := r.zombies(ctx, m)
	return func(context.Context) error {
		err := m.thaw()
		after()
		return err
	}, err
}

func offClocks(ctx context.Context, r *run, rnd *rand.Rand) (func(context.Context) error, error) {
	set := func(ctx context.Context, m *member, offset time.Duration) error {
		if err := r.replace(ctx, m, offset); err != nil {
			return err
		}
		// See that it took effect.
		c := newClient(false, nil)
		defer c.close()
		a := c.do(ctx, r.clock, "GET", m.url+"/healthz", "", cookies{})
		if off := time.Until(a.date) - offset; off.Abs() > time.Minute {
			return fmt.Errorf("the clock of %s is %v from where it was set", m.name, off)
		}
		return nil
	}
	i := rnd.IntN(len(r.members))
	fast, slow := r.members[i], r.members[(i+1)%len(r.members)]
	err := errors.Join(set(ctx, fast, clockError), set(ctx, slow, -clockError))
	return nil, err
}

func loseDoorbells(ctx context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	ended := 0
	// Nodes that have lost it several times in a row pause for up to 45 s before they
	// listen again.
	for i := 0; i < 5 || ended == 0 && i < 120; i++ {
		n, err := r.db.endDoorbells(ctx)
		if err != nil {
			return nil, err
		}
		ended += n
		pause(ctx, 500*time.Millisecond)
	}
	if ended == 0 {
		return nil, errors.New("no node listens")
	}
	return nil, nil
}

func blind(ctx context.Context, r *run, rnd *rand.Rand) (func(context.Context) error, error) {
	m := pick(r, rnd)
	return func(ctx context.Context) error { return r.db.blind(ctx, m.name, false) }, r.db.blind(ctx, m.name, true)
}

func breakNetwork(how netState) func(context.Context, *run, *rand.Rand) (func(context.Context) error, error) {
	return func(_ context.Context, r *run, rnd *rand.Rand) (func(context.Context) error, error) {
		m := pick(r, rnd)
		m.setNetwork(how)
		return func(context.Context) error { m.setNetwork(forwarding); return nil }, nil
	}
}

func holdLock(ctx context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	conn, err := r.db.admin.Conn(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	return func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, conn.Close())
	}, err
}

func restartDatabase(ctx context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	return nil, r.db.container.restart(ctx)
}

func killDatabase(_ context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	return r.db.container.start, r.db.container.kill()
}

func failOver(_ context.Context, r *run, _ *rand.Rand) (func(context.Context) error, error) {
	return nil, r.db.failOver()
}
