package browsertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A composition is the services of docker-compose.yml, run as a project of the
// test's own on free ports.
type composition struct {
	command []string
	env     []string
	doors   map[string]string // URLs by the names of their variables
}

// doorVariables choose the ports in docker-compose.yml.
var doorVariables = []string{"HOLDFAST_PORT", "HOLDFAST_PORT_STICKY", "HOLDFAST_PORT_MYSQL", "HOLDFAST_PORT_MYSQL_STICKY"}

// startComposition starts the services of both profiles, and removes them at the
// end of the test. It takes some minutes, so the test is skipped unless
// HOLDFAST_TEST_COMPOSE=1.
func startComposition(t *testing.T) *composition {
	t.Helper()
	if os.Getenv("HOLDFAST_TEST_COMPOSE") != "1" {
		t.Skip("HOLDFAST_TEST_COMPOSE is not 1")
	}
	c := &composition{env: os.Environ(), doors: make(map[string]string)}
	for _, command := range [][]string{{"docker-compose"}, {"docker", "compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil && exec.Command("docker", "info").Run() == nil {
			c.command = command
			break
		}
	}
	if c.command == nil {
		t.Fatal("there is no docker-compose, or no Docker")
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	c.command = append(c.command, "--profile", "mysql", "--file", filepath.Join(root, "docker-compose.yml"),
		"--project-name", fmt.Sprintf("holdfast-test-%d", os.Getpid()))
	for _, name := range doorVariables {
		port := freePort(t)
		c.env = append(c.env, name+"="+port)
		c.doors[name] = "http://127.0.0.1:" + port
	}
	// Networks that a composition of somebody else's does not have, most likely.
	subnet := 2 * (os.Getpid() % 120)
	c.env = append(c.env, fmt.Sprintf("HOLDFAST_NET=10.118.%d", subnet), fmt.Sprintf("HOLDFAST_NET_MYSQL=10.118.%d", subnet+1))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", c.output("logs", "--tail", "40"))
		}
		c.run(t, "down", "--volumes", "--timeout", "5")
	})
	c.run(t, "up", "--build", "--detach")
	for _, door := range c.doors {
		c.await(t, door)
	}
	return c
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (c *composition) exec(args ...string) ([]byte, error) {
	cmd := exec.Command(c.command[0], append(c.command[1:len(c.command):len(c.command)], args...)...)
	cmd.Env = c.env
	return cmd.CombinedOutput()
}

func (c *composition) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := c.exec(args...); err != nil {
		t.Errorf("docker-compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (c *composition) output(args ...string) []byte {
	out, _ := c.exec(args...)
	return out
}

// await waits until a door answers.
func (c *composition) await(t *testing.T, door string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := client.Get(door + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", door, err)
		}
		<-time.After(200 * time.Millisecond)
	}
}

// A door is one of a database's two, and what becomes of the nodes that answer there.
type door struct{ name, url, command string }

// TestCompose shops at every door of docker-compose.yml while the nodes behind it
// are stopped, killed and started anew.
func TestCompose(t *testing.T) {
	chromium := startChromium(t)
	c := startComposition(t)
	t.Run("databases", func(t *testing.T) { // ends before the composition does
		t.Run("postgres", func(t *testing.T) {
			t.Parallel()
			c.visit(t, chromium, "", door{"30-haproxy", c.doors["HOLDFAST_PORT"], "stop"},
				door{"31-apache", c.doors["HOLDFAST_PORT_STICKY"], "kill"})
		})
		t.Run("mysql", func(t *testing.T) {
			t.Parallel()
			c.visit(t, chromium, "mysql-", door{"32-haproxy-mysql", c.doors["HOLDFAST_PORT_MYSQL"], "kill"},
				door{"33-apache-mysql", c.doors["HOLDFAST_PORT_MYSQL_STICKY"], "stop"})
		})
	})
}

// visit shops at the doors of one database, whose nodes have this prefix.
func (c *composition) visit(t *testing.T, chromium context.Context, prefix string, doors ...door) {
	t.Helper()
	for _, door := range doors {
		b := newBrowser(t, chromium, door.name, door.url)
		b.open("/login")
		b.logIn("Ada")
		b.press("Add Storm lantern to the cart")
		id := b.sessionID()
		for i := range 2 { // two of the three
			node := b.answered()
			c.run(t, door.command, prefix+node)
			b.open("/")
			if now := b.answered(); now == node {
				t.Errorf("%s: %s answers after %s", door.name, node, door.command)
			}
			b.press("Add Brass compass to the cart")
			b.sees("Brass compass is in your cart.")
			b.wantsCart(i+2, id)
		}
		b.show(door.name)
		c.run(t, "start", prefix+"node1", prefix+"node2", prefix+"node3")
		b.open("/cart")
		b.wantsCart(3, id)
		for _, node := range []string{"node1", "node2", "node3"} {
			c.awaitHealthy(t, prefix+node)
		}
	}
	c.rollingRestart(t, prefix, doors)
}

// rollingRestart restarts each node in turn under traffic at all doors, of which no
// request may fail and no increment be lost.
func (c *composition) rollingRestart(t *testing.T, prefix string, doors []door) {
	t.Helper()
	const clients = 3 // at each door
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, door := range doors {
		for range clients {
			wg.Go(func() {
				if n, err := count(door.url, stop); err != nil {
					t.Errorf("%s: after %d requests: %v", door.name, n, err)
				} else if n < 50 {
					t.Errorf("%s: only %d requests were made", door.name, n)
				}
			})
		}
	}
	for _, node := range []string{"node1", "node2", "node3"} {
		c.run(t, "restart", "--timeout", "50", prefix+node)
		c.awaitHealthy(t, prefix+node)
	}
	close(stop)
	wg.Wait()
}

// awaitHealthy waits until a node's container is healthy, and a little longer than
// the balancers take to notice that.
func (c *composition) awaitHealthy(t *testing.T, service string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		id := bytes.TrimSpace(c.output("ps", "--quiet", service))
		state, err := exec.Command("docker", "inspect", "--format", "{{.State.Health.Status}}", string(id)).Output()
		if err == nil && string(bytes.TrimSpace(state)) == "healthy" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s: %v", service, state, err)
		}
		<-time.After(200 * time.Millisecond)
	}
	<-time.After(3 * time.Second) // three of their checks
}

// count increments a counter in a session of its own until stop is closed, and
// returns how often.
func count(door string, stop <-chan struct{}) (n int, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute}
	for {
		select {
		case <-stop:
			return n, nil
		case <-time.After(20 * time.Millisecond):
		}
		resp, err := client.Post(door+"/api/counters/n", "", nil)
		if err != nil {
			return n, err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return n, err
		}
		n++
		if want := fmt.Sprintf("{\"value\":%d}\n", n); string(body) != want {
			return n, fmt.Errorf("status %d, %q, want %q", resp.StatusCode, body, want)
		}
	}
}
