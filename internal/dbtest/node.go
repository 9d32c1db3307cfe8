package dbtest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// A Node is a server in a container of the test's own, one of several that know each
// other. The test may kill it.
type Node struct {
	// Name is what the other nodes call it.
	Name string
	// Address is its host:port for the test.
	Address string

	resource *dockertest.Resource
	pool     *dockertest.Pool
}

// Kill ends the node's processes at once, as a power failure does.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	err := n.pool.Client.KillContainer(docker.KillContainerOptions{ID: n.resource.Container.ID, Signal: docker.SIGKILL})
	if err != nil {
		t.Fatalf("dbtest: kill %s: %v", n.Name, err)
	}
}

// Exec runs a command in the node's container, and fails the test if it fails.
func (n *Node) Exec(t testing.TB, command ...string) string {
	t.Helper()
	var out bytes.Buffer
	code, err := n.resource.Exec(command, dockertest.ExecOptions{StdOut: &out, StdErr: &out})
	if err != nil || code != 0 {
		t.Fatalf("dbtest: %s: %s: exit code %d, error %v\n%s", n.Name, strings.Join(command, " "), code, err, out.String())
	}
	return out.String()
}

// A network is what the nodes of one test share.
type network struct {
	*dockertest.Network // nil: the default bridge, where the shared servers are
	pool                *dockertest.Pool
	name                string
}

// newNetwork makes a network that is removed when the test ends. Without Docker the
// test is skipped.
func newNetwork(t testing.TB) *network {
	t.Helper()
	n := defaultBridge(t)
	var err error
	if n.Network, err = n.pool.CreateNetwork(n.name); err != nil {
		t.Fatalf("dbtest: create a network: %v", err)
	}
	t.Cleanup(func() {
		if err := n.pool.RemoveNetwork(n.Network); err != nil {
			t.Errorf("dbtest: remove a network: %v", err)
		}
	})
	return n
}

func defaultBridge(t testing.TB) *network {
	t.Helper()
	pool, err := connectDocker()
	if err != nil {
		unavailable(t, err.Error())
	}
	n := &network{pool: pool, name: strings.ReplaceAll(databaseName(), "_", "-")}
	t.Cleanup(pool.Client.HTTPClient.CloseIdleConnections)
	return n
}

// start starts a node, whose container is removed when the test ends. It does not
// wait until it answers.
func (n *network) start(t testing.TB, name, port, tmpfs string, run dockertest.RunOptions) *Node {
	t.Helper()
	run.Name = n.name + "-" + name
	run.Hostname = run.Name
	if n.Network != nil {
		run.Networks = []*dockertest.Network{n.Network}
	}
	resource, err := n.pool.RunWithOptions(&run, func(host *docker.HostConfig) {
		if tmpfs != "" {
			host.Tmpfs = map[string]string{tmpfs: "rw,exec,mode=1777"}
		}
	})
	if err != nil {
		t.Fatalf("dbtest: start %s: %v", name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dbtest: the last lines of %s:\n%s", name, n.lastLines(resource))
		}
		gone := new(docker.NoSuchContainer)
		if err := n.pool.Purge(resource); err != nil && !errors.As(err, &gone) {
			t.Errorf("dbtest: remove %s: %v", name, err)
		}
	})
	if err := resource.Expire(uint(lifetime / time.Second)); err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	return &Node{Name: run.Name, Address: resource.GetHostPort(port), resource: resource, pool: n.pool}
}

func (n *network) lastLines(resource *dockertest.Resource) string {
	var out bytes.Buffer
	err := n.pool.Client.Logs(docker.LogsOptions{
		Container: resource.Container.ID, OutputStream: &out, ErrorStream: &out, Stdout: true, Stderr: true, Tail: "15",
	})
	if err != nil {
		return err.Error()
	}
	return out.String()
}

// await tries until it succeeds, and fails the test if that takes too long.
func (n *network) await(t testing.TB, what string, try func() error) {
	t.Helper()
	if err := n.pool.Retry(try); err != nil {
		t.Fatalf("dbtest: %s: %v", what, err)
	}
}

// build makes an image out of a Dockerfile, which official images need for what they
// lack. The builder's cache makes it quick after the first time.
func (n *network) build(t testing.TB, image, dockerfile string) {
	t.Helper()
	var context bytes.Buffer
	w := tar.NewWriter(&context)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}),
		func() error { _, err := w.Write([]byte(dockerfile)); return err }(),
		w.Close(),
	)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	var out bytes.Buffer
	// Where the bridge has no way out to the package mirror, the host's network has.
	err = n.pool.Client.BuildImage(docker.BuildImageOptions{
		Name: image, InputStream: &context, OutputStream: &out, NetworkMode: "host", RmTmpContainer: true,
	})
	if err != nil {
		tail := out.Bytes()
		unavailable(t, fmt.Sprintf("image %s cannot be built: %v\n%s", image, err, tail[max(0, len(tail)-1000):]))
	}
}
