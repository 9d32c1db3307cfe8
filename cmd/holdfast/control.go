package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/shop"
)

// controlTimeout is how long the demo may take to answer one of its nodes.
const controlTimeout = 5 * time.Second

// newControl returns the interface through which the demo's nodes hand on what a
// visitor wants done with them. It listens on this machine only and wants a token,
// so that no page of another website can reach it.
func newControl(cluster shop.Cluster, token string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		nodes, err := cluster.Nodes(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := json.NewEncoder(w).Encode(nodes); err != nil {
			panic(http.ErrAbortHandler) // the node has gone
		}
	})
	mux.HandleFunc("POST /nodes/{node}/{command}", func(w http.ResponseWriter, r *http.Request) {
		err := cluster.Command(r.Context(), r.PathValue("node"), shop.NodeCommand(r.PathValue("command")))
		switch {
		case errors.Is(err, shop.ErrNoSuchNode):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// A controlClient is the demo's cluster as one of its nodes sees it.
type controlClient struct {
	upbringing
	http *http.Client
}

func newControlClient(told upbringing) *controlClient {
	return &controlClient{told, &http.Client{Transport: &http.Transport{}, Timeout: controlTimeout}}
}

// Nodes implements [shop.Cluster].
func (c *controlClient) Nodes(ctx context.Context) (nodes []shop.ClusterNode, err error) {
	body, err := c.do(ctx, http.MethodGet, "/nodes")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &nodes); err != nil {
		return nil, fmt.Errorf("what the demo says: %w", err)
	}
	return nodes, nil
}

// Command implements [shop.Cluster].
func (c *controlClient) Command(ctx context.Context, node string, command shop.NodeCommand) error {
	_, err := c.do(ctx, http.MethodPost, "/nodes/"+url.PathEscape(node)+"/"+url.PathEscape(string(command)))
	return err
}

func (c *controlClient) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Control+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the demo: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the demo: %w", err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, shop.ErrNoSuchNode
	case resp.StatusCode != http.StatusOK:
		return nil, errors.New(string(bytes.TrimSpace(body)))
	}
	return body, nil
}
