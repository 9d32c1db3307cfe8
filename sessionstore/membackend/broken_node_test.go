package membackend

import (
	"context"
	"errors"
	"maps"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var nodeFaults = []fault{
	{name: "RegisterNode takes names from the living", fails: []string{
		"Nodes/a name that is held is refused",
		"Nodes/a dead node's name is free",
		"Nodes/of claims at once one succeeds",
	}, wreck: func(b *broken) {
		b.register = func(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
			holder, err := b.Backend.RegisterNode(ctx, node)
			if errors.Is(err, sessionstore.ErrNodeNameTaken) {
				b.Backend.UnregisterNode(ctx, node.Name, holder.Instance)
				return b.Backend.RegisterNode(ctx, node)
			}
			return holder, err
		}
	}},
	{name: "RegisterNode renews the holder", fails: []string{
		"Nodes/a name that is held is refused",
	}, wreck: func(b *broken) {
		b.register = func(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
			holder, err := b.Backend.RegisterNode(ctx, node)
			if errors.Is(err, sessionstore.ErrNodeNameTaken) {
				b.Backend.RegisterNode(ctx, holder)
			}
			return holder, err
		}
	}},
	{name: "RegisterNode keeps names for ever", fails: []string{
		"Nodes/a dead node's name is free",
		"Nodes/of claims at once one succeeds",
		"Nodes/old nodes are forgotten",
	}, wreck: func(b *broken) {
		b.register = func(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
			b.mu.Lock()
			holder, found := b.nodes[node.Name]
			holder.Now = b.nowLocked()
			kept := maps.Clone(b.nodes)
			b.mu.Unlock()
			if found && holder.Instance != node.Instance {
				return holder, sessionstore.ErrNodeNameTaken
			}
			holder, err := b.Backend.RegisterNode(ctx, node)
			b.mu.Lock()
			defer b.mu.Unlock()
			maps.Copy(kept, b.nodes)
			b.nodes = kept
			return holder, err
		}
	}},
	{name: "each renewal is a new start", fails: []string{
		"Nodes/RegisterNode renews",
		"Nodes/old nodes are forgotten",
	}, wreck: func(b *broken) {
		b.register = func(ctx context.Context, node sessionstore.Node) (sessionstore.Node, error) {
			b.Backend.UnregisterNode(ctx, node.Name, node.Instance)
			return b.Backend.RegisterNode(ctx, node)
		}
	}},
	{name: "UnregisterNode forgets whoever has the name", fails: []string{
		"Nodes/UnregisterNode forgets the instance only",
	}, wreck: func(b *broken) {
		b.unregister = func(ctx context.Context, name string, _ uuid.UUID) error {
			b.mu.Lock()
			instance := b.nodes[name].Instance
			b.mu.Unlock()
			return b.Backend.UnregisterNode(ctx, name, instance)
		}
	}},
}
