package shop

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Cluster is nodes that visitors may stop and start, from a panel on each page.
// Only the demo has one.
type Cluster interface {
	// Nodes returns the nodes as they are now, always in the same order.
	Nodes(ctx context.Context) ([]ClusterNode, error)

	// Command begins what is to be done with the node of this name, and returns at
	// once. Its error is ErrNoSuchNode if there is none of this name, or says why
	// the node cannot do that now.
	Command(ctx context.Context, node string, command NodeCommand) error
}

// ErrNoSuchNode is returned by [Cluster.Command].
var ErrNoSuchNode = errors.New("there is no such node")

// A NodeCommand is what can be done with a node.
type NodeCommand string

// The commands.
const (
	StartNode NodeCommand = "start"
	StopNode  NodeCommand = "stop" // in good order
	KillNode  NodeCommand = "kill" // as a power failure would
	// IsolateNode keeps new connections away from a node that is about to be
	// killed, so that its last answer can still be given.
	IsolateNode NodeCommand = "isolate"
)

// nodeCommands are those that visitors may give.
var nodeCommands = []NodeCommand{StartNode, StopNode, KillNode}

// A NodeState says what a node of a [Cluster] does.
type NodeState string

// The states of a node.
const (
	NodeStarting NodeState = "starting"
	NodeRunning  NodeState = "running"
	NodeStopping NodeState = "stopping"
	NodeStopped  NodeState = "stopped"
)

// A ClusterNode is one node of a [Cluster].
type ClusterNode struct {
	Name   string    `json:"name"`
	State  NodeState `json:"state"`
	Detail string    `json:"detail"` // more about the state, for people, or ""
}

// Changing reports whether the node will soon be in another state by itself.
func (n ClusterNode) Changing() bool { return n.State == NodeStarting || n.State == NodeStopping }

const (
	// clusterTimeout is how long a page waits to hear how the nodes are.
	clusterTimeout = 2 * time.Second
	// settleTimeout is how long the answer to a command waits for its effect.
	settleTimeout = 5 * time.Second
)

// A nodesPanel is the part of a page that shows a cluster's nodes.
type nodesPanel struct {
	Nodes    []ClusterNode
	Self     string // which of them made the page, or ""
	Back     string // path of the page
	Changing bool   // one of them will soon look different
}

// panel returns the panel for the page at r, nil without a cluster.
func panel(r *http.Request, cluster Cluster, self string, logger *slog.Logger) *nodesPanel {
	if cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), clusterTimeout)
	defer cancel()
	nodes, err := cluster.Nodes(ctx)
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelError, "cannot tell how the nodes are", slog.Any("error", err))
		return nil
	}
	return &nodesPanel{
		Nodes: nodes, Self: self, Back: r.URL.Path, Changing: slices.ContainsFunc(nodes, ClusterNode.Changing),
	}
}

// A commander answers the panel's buttons. It needs no session: the panel itself
// shows what came of it.
type commander struct {
	cluster Cluster
	self    string // the node that answers, or ""
	fail    func(w http.ResponseWriter, r *http.Request, status int, message string)
}

func (c commander) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node, command := r.PathValue("node"), NodeCommand(r.PathValue("command"))
	if !slices.Contains(nodeCommands, command) {
		c.fail(w, r, http.StatusNotFound, "there is nothing at this address")
		return
	}
	last := node == c.self && command == KillNode // this is the last that the node says
	begin := command
	if last {
		begin = IsolateNode
	}
	switch err := c.cluster.Command(r.Context(), node, begin); {
	case errors.Is(err, ErrNoSuchNode):
		c.fail(w, r, http.StatusNotFound, err.Error())
		return
	case err != nil:
		c.fail(w, r, http.StatusConflict, err.Error())
		return
	}
	if node != c.self {
		c.settle(r.Context(), node)
	}
	h := w.Header()
	h.Set("Connection", "close") // the next request may go to another node
	h.Set("Content-Length", "0")
	http.Redirect(w, r, localPath(r.URL.Query().Get("back")), http.StatusSeeOther)
	if !last {
		return
	}
	// What has left for the client's connection arrives, whatever becomes of this
	// process, which comes no further than the following line if all goes well.
	if err := http.NewResponseController(w).Flush(); err == nil {
		_ = c.cluster.Command(context.WithoutCancel(r.Context()), node, command)
	}
}

// settle waits until a command has had its effect on a node, so that the next page
// shows it; not for long, because a node that stops may have requests to finish.
func (c commander) settle(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		nodes, err := c.cluster.Nodes(ctx)
		if err != nil || !slices.ContainsFunc(nodes, func(n ClusterNode) bool { return n.Name == node && n.Changing() }) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// localPath returns a path that a browser will look for on this site, whatever
// was asked for.
func localPath(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\t\r\n") {
		return "/"
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// NewStandby returns what answers while no node of the cluster does: pages that say
// so and let the visitor start a node, and errors at the JSON interface. It needs
// no database. It is safe for concurrent use.
func NewStandby(cluster Cluster, logger *slog.Logger) http.Handler {
	const stopped = "all nodes are stopped; start one, and your session is there again"
	deny := func(w http.ResponseWriter, r *http.Request, status int, message string) {
		if isBelow(r.URL.Path, "/api") || isBelow(r.URL.Path, "/office/api") || r.URL.Path == "/healthz" {
			writeError(w, status, message)
			return
		}
		write(w, "error", status, view{Title: http.StatusText(status), Content: errorContent(status, message)})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.HandlerFunc(serveStatic))
	mux.Handle("GET /favicon.ico", http.RedirectHandler(asset("favicon.svg"), http.StatusFound))
	mux.Handle("POST /nodes/{node}/{command}", commander{cluster: cluster, fail: deny})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", retryAfter)
		if isBelow(r.URL.Path, "/api") || isBelow(r.URL.Path, "/office/api") || r.URL.Path == "/healthz" {
			deny(w, r, http.StatusServiceUnavailable, stopped)
			return
		}
		write(w, "standby", http.StatusServiceUnavailable, view{
			Title: "All nodes are stopped", Office: isBelow(r.URL.Path, "/office"), Panel: panel(r, cluster, "", logger),
		})
	})
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deny(w, r, http.StatusForbidden, crossOrigin)
	}))
	return secured(guard.Handler(mux))
}
