package sessionstore

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
)

// NodeRetention is how long a [NodeRegistry] remembers nodes that are no longer
// alive: long enough to see what has died over night.
const NodeRetention = 24 * time.Hour

// A NodeState says what a node is about to do.
type NodeState string

const (
	// NodeServing: the node serves like any other.
	NodeServing NodeState = "serving"
	// NodeDraining: the node still serves, and is about to stop.
	NodeDraining NodeState = "draining"
)

// A Node is a process that uses a database, as a [NodeRegistry] knows it. It is
// alive while the database's clock is before SeenAt+TTL (P12).
type Node struct {
	// Name is unique among the nodes that are alive, at most MaxNameBytes bytes.
	Name string
	// Instance tells this process from all others, of the same name too.
	Instance uuid.UUID
	// Host and PID say where the process runs, for people. Host has at most
	// MaxNameBytes bytes.
	Host string
	PID  int
	// State is what the node said of itself.
	State NodeState
	// TTL is how long the node counts as alive without being heard of.
	TTL time.Duration

	// StartedAt is when this instance claimed the name, and SeenAt when it was last
	// heard of, by the database's clock.
	StartedAt, SeenAt time.Time
	// Now is the database's clock when it was asked.
	Now time.Time
}

// Alive reports whether the node was alive when the database was asked.
func (n Node) Alive() bool { return n.Now.Before(n.SeenAt.Add(n.TTL)) }

// String says who and where the node is, and when it was last heard of.
func (n Node) String() string {
	return fmt.Sprintf("%s (pid %d on %s, instance %s, last seen %s ago)",
		n.Name, n.PID, n.Host, n.Instance, n.Now.Sub(n.SeenAt).Round(time.Millisecond))
}

// A NodeRegistry is a [Backend] that knows which processes use it, so that two that
// were given one name by mistake are told so. Nothing else depends on it: records
// have no owner, and what a process may do does not depend on being registered.
type NodeRegistry interface {
	// RegisterNode claims node's name for its instance and stores what node says, or
	// renews what the instance has stored before. The database's clock becomes
	// SeenAt, and StartedAt if the name was not the instance's; node's own times are
	// ignored.
	//
	// If another instance holds the name and is alive, RegisterNode returns
	// [ErrNodeNameTaken] beside that node and changes nothing. Of concurrent claims
	// of a name exactly one succeeds. Otherwise what comes beside the error is the
	// zero Node. A claim of a name that was not stored forgets the nodes that were
	// alive last more than [NodeRetention] ago.
	RegisterNode(ctx context.Context, node Node) (holder Node, err error)

	// UnregisterNode forgets the node of this name if it is this instance. If it is
	// not, or there is none, nothing changes, which is no error.
	UnregisterNode(ctx context.Context, name string, instance uuid.UUID) error

	// Nodes yields all nodes that are stored, alive or not, by name. It holds no
	// resource of the database while it yields. After an error it yields nothing more.
	Nodes(ctx context.Context) iter.Seq2[Node, error]
}
