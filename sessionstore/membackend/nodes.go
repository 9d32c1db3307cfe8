package membackend

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var _ sessionstore.NodeRegistry = (*Backend)(nil)

// RegisterNode implements [sessionstore.NodeRegistry].
func (b *Backend) RegisterNode(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
	if err := ctx.Err(); err != nil {
		return sessionstore.Node{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	holder, found := b.nodes[node.Name]
	holder.Now = now
	if found && holder.Instance != node.Instance && holder.Alive() {
		return holder, sessionstore.ErrNodeNameTaken
	}
	node.StartedAt, node.SeenAt = now, now
	if found && holder.Instance == node.Instance {
		node.StartedAt = holder.StartedAt
	}
	b.nodes[node.Name] = node
	if !found {
		maps.DeleteFunc(b.nodes, func(_ string, n sessionstore.Node) bool {
			return !now.Before(n.SeenAt.Add(n.TTL + sessionstore.NodeRetention))
		})
	}
	return sessionstore.Node{}, nil
}

// UnregisterNode implements [sessionstore.NodeRegistry].
func (b *Backend) UnregisterNode(ctx context.Context, name string, instance uuid.UUID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nodes[name].Instance == instance {
		delete(b.nodes, name)
	}
	return nil
}

// Nodes implements [sessionstore.NodeRegistry].
func (b *Backend) Nodes(ctx context.Context) iter.Seq2[sessionstore.Node, error] {
	return func(yield func(sessionstore.Node, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(sessionstore.Node{}, err)
			return
		}
		b.mu.Lock()
		now := b.nowLocked()
		nodes := slices.Collect(maps.Values(b.nodes))
		b.mu.Unlock()
		slices.SortFunc(nodes, func(x, y sessionstore.Node) int { return strings.Compare(x.Name, y.Name) })
		for _, n := range nodes {
			n.Now = now
			if !yield(n, nil) {
				return
			}
		}
	}
}
