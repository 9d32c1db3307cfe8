package sqlbackend

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// RegisterNode implements [sessionstore.NodeRegistry]. Renewing is one statement.
func (b *Backend) RegisterNode(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
	holder, err := b.registerNode(ctx, node)
	if err != nil {
		err = fmt.Errorf("register node %s: %w", node.Name, err)
	}
	return holder, err
}

func (b *Backend) registerNode(ctx context.Context, node sessionstore.Node) (none sessionstore.Node, err error) {
	a := b.nodeArgs(node.Name, node.Instance)
	a["host"], a["pid"] = b.dialect.Text(node.Host), int64(node.PID)
	a["state"], a["ttl"] = b.dialect.Text(string(node.State)), node.TTL.Microseconds()
	// Not one statement: INSERT … ON CONFLICT has a condition on few databases, and
	// without one it would take the name of somebody who is alive. In between the
	// name may become somebody else's, or nobody's.
	for range maxAttempts {
		if affected, err := b.execPolled(ctx, b.sql.renewNode, a); err != nil || affected > 0 {
			return none, err
		}
		holder, found, err := b.node(ctx, node.Name)
		switch {
		case err != nil:
			return none, err
		case found && holder.Instance == node.Instance:
			return none, nil // MySQL does not count rows that an UPDATE left as they were
		case found && holder.Alive():
			return holder, sessionstore.ErrNodeNameTaken
		case found:
			continue // it was alive when renewNode looked
		}
		switch _, err := b.execPolled(ctx, b.sql.insertNode, a); {
		case err == nil:
			_, err = b.execPolled(ctx, b.sql.pruneNodes, args{"age": sessionstore.NodeRetention.Microseconds()})
			return none, err
		case b.dialect.Classify(err) != Duplicate:
			return none, err
		}
	}
	return none, fmt.Errorf("the name changed hands %d times", maxAttempts)
}

// UnregisterNode implements [sessionstore.NodeRegistry].
func (b *Backend) UnregisterNode(ctx context.Context, name string, instance uuid.UUID) error {
	if _, err := b.execPolled(ctx, b.sql.deleteNode, b.nodeArgs(name, instance)); err != nil {
		return fmt.Errorf("unregister node %s: %w", name, err)
	}
	return nil
}

// Nodes implements [sessionstore.NodeRegistry]. It reads all before it yields the first.
func (b *Backend) Nodes(ctx context.Context) iter.Seq2[sessionstore.Node, error] {
	return func(yield func(sessionstore.Node, error) bool) {
		nodes, err := b.queryNodes(ctx, b.sql.listNodes, nil)
		if err != nil {
			yield(sessionstore.Node{}, fmt.Errorf("list nodes: %w", err))
			return
		}
		for _, node := range nodes {
			if !yield(node, nil) {
				return
			}
		}
	}
}

func (b *Backend) node(ctx context.Context, name string) (node sessionstore.Node, found bool, err error) {
	nodes, err := b.queryNodes(ctx, b.sql.findNode, args{"name": b.dialect.Text(name)})
	if err != nil || len(nodes) == 0 {
		return node, false, err
	}
	return nodes[0], true, nil
}

func (b *Backend) nodeArgs(name string, instance uuid.UUID) args {
	return args{"name": b.dialect.Text(name), "instance": b.dialect.ID(sessionstore.ID(instance))}
}

// execPolled runs a statement alone, counted under [Backend.Polls].
func (b *Backend) execPolled(ctx context.Context, st *statement, a args) (affected int64, err error) {
	err = b.retry(ctx, func(ctx context.Context) (err error) {
		affected, err = runner{q: b.db, ran: &b.polled}.exec(ctx, st, a)
		return err
	})
	return affected, err
}

func (b *Backend) queryNodes(ctx context.Context, st *statement, a args) (nodes []sessionstore.Node, err error) {
	err = b.read(ctx, &b.polled, st, a, func() { nodes = nil }, func(scan Scan) error {
		var (
			n                       sessionstore.Node
			instance                storedID
			state                   string
			pid                     int64
			started, seen, ttl, now int64
		)
		err := scan(&n.Name, &instance, &n.Host, &pid, &state, &started, &seen, &ttl, &now)
		n.Instance, n.PID, n.State = uuid.UUID(instance), int(pid), sessionstore.NodeState(state)
		n.StartedAt, n.SeenAt, n.Now = fromMicros(started), fromMicros(seen), fromMicros(now)
		n.TTL = time.Duration(ttl) * time.Microsecond
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}
