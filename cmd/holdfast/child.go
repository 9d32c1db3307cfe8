package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// An upbringing is what the demo tells a node that it starts, in one line on the
// node's standard input. The input's end is the demo's end.
type upbringing struct {
	Control string `json:"control"` // URL of the demo's control interface
	Token   string `json:"token"`   // what opens it
}

// adopt completes the configuration of a node that belongs to a demo. The context
// it returns ends when the demo does, however that comes about. Ctrl-C, which a
// terminal sends to both, is the demo's business.
func (cfg *nodeConfig) adopt(ctx context.Context, stdin io.Reader) (context.Context, error) {
	signal.Ignore(os.Interrupt)
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("--child is for the demo's own nodes: %w", err)
	}
	var told upbringing
	if err := json.Unmarshal(line, &told); err != nil {
		return nil, fmt.Errorf("--child is for the demo's own nodes: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	orphaned := make(chan struct{})
	go func() { // as long as the process
		_, _ = io.Copy(io.Discard, in)
		close(orphaned)
		cancel()
	}()
	cfg.hurry = orphaned
	cfg.cluster = newControlClient(told)
	return ctx, nil
}
