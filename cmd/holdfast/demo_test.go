package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// A demo is a running "holdfast demo".
type demo struct {
	*process
	nodes map[string]string // URLs by name
	place string            // what it says of its database
}

// startDemo starts the demo on a free port, and reads what it prints first.
func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	d := &demo{process: start(t, append([]string{"demo", "--listen", "127.0.0.1:0"}, args...)...), nodes: map[string]string{}}
	if want := "front " + d.url + "\n"; d.started != want {
		t.Fatalf("it begins with %q, want %q", d.started, want)
	}
	for d.lines.Scan() {
		m := regexp.MustCompile(`^(node[1-9][0-9]*) (http://127\.0\.0\.1:[0-9]+)$`).FindStringSubmatch(d.lines.Text())
		if m == nil {
			break
		}
		if want := fmt.Sprintf("node%d", len(d.nodes)+1); m[1] != want {
			t.Errorf("%s is listed where %s should be", m[1], want)
		}
		d.nodes[m[1]] = m[2]
	}
	d.place = d.lines.Text()
	wantContains(t, d.place, "Sessions are", "Ctrl-C")
	return d
}

// pid returns the process ID of a node.
func (d *demo) pid(name string) int {
	d.t.Helper()
	for pid, args := range processes(d.t) {
		if strings.Contains(args, "\x00--node\x00"+name+"\x00") && parent(d.t, pid) == d.cmd.Process.Pid {
			return pid
		}
	}
	d.t.Fatalf("%s has no process", name)
	return 0
}

// processes returns the command lines of all processes.
func processes(t *testing.T) map[int]string {
	t.Helper()
	all := make(map[int]string)
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("there is no /proc here")
	}
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(dir.Name()); err == nil {
			if args, err := os.ReadFile(filepath.Join("/proc", dir.Name(), "cmdline")); err == nil && len(args) > 0 {
				all[pid] = string(args)
			}
		}
	}
	return all
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitGone waits until there are no processes that work on a database.
func awaitGone(t *testing.T, database string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		left := ""
		for _, args := range processes(t) {
			if strings.Contains(args, "\x00"+database+"\x00") {
				left = args
			}
		}
		if left == "" {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%q is left", left)
		}
	}
}

// fresh returns a client that opens a connection for each request, so that the
// balancer gives each to another node, and follows no redirects.
func fresh(t *testing.T) *http.Client {
	t.Helper()
	c := newClient(t)
	c.Transport = &http.Transport{DisableKeepAlives: true}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// answeredBy returns which node answers a client.
func answeredBy(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	var answer struct{ Node string }
	if err := json.Unmarshal([]byte(fetch(t, c, "GET", url+"/api/session", "")), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Node
}

// press posts one of the panel's forms and returns the answer's status.
func press(t *testing.T, c *http.Client, url string, header ...string) (status int, location string) {
	t.Helper()
	req, err := http.NewRequest("POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	return resp.StatusCode, resp.Header.Get("Location")
}

// awaitPage waits until a page says something.
func awaitPage(t *testing.T, c *http.Client, url string, status int, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		resp, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == status && strings.Contains(string(body), text) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: %d and no %q in %s", url, resp.StatusCode, text, body)
		}
	}
}

func TestDemo(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			d := startDemo(t)
			path := regexp.MustCompile(`/\S+sessions\.db`).FindString(d.place)
			if _, err := os.Stat(path); err != nil || len(d.nodes) != defaultNodes {
				t.Fatalf("%d nodes, the database it names: %v", len(d.nodes), err)
			}
			c := fresh(t)
			wantContains(t, fetch(t, c, "GET", d.url+"/", ""), "Gear that holds fast", "</span> answered", `aria-label="Stop node3"`)
			wantContains(t, fetch(t, c, "POST", d.url+"/api/counters/n", ""), `{"value":1}`)
			seen := make(map[string]bool)
			for range 2 * defaultNodes {
				seen[answeredBy(t, c, d.url)] = true
				wantContains(t, fetch(t, c, "GET", d.url+"/api/session", ""), `"n":1`)
			}
			for name, url := range d.nodes {
				if !seen[name] {
					t.Errorf("%s never answered", name)
				}
				wantContains(t, fetch(t, c, "GET", url+"/api/session", ""), `"node":"`+name+`"`, `"n":1`)
			}
			wantContains(t, fetch(t, c, "GET", d.url+"/api/session", ""), `"source":"cache"`)
			last := d.stop(signal)
			for name := range d.nodes {
				wantContains(t, last, "["+name+"] Stopped. Written back: ")
			}
			if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
				t.Errorf("its directory is still there: %v", err)
			}
			awaitGone(t, "sqlite:"+path)
		})
	}
}

// A visitor stops the very node that answers, one after the other, is told so each
// time, and goes on. At last nobody is left; then a node comes back, and the session
// with it.
func TestDemoStopsAndStartsNodes(t *testing.T) {
	for _, command := range []string{"stop", "kill"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t)
			c := newClient(t) // keeps its connections, as browsers do
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			wantContains(t, fetch(t, c, "POST", d.url+"/api/login", `{"user":"Ada"}`), "Ada")
			for i := range defaultNodes {
				wantContains(t, fetch(t, c, "POST", d.url+"/api/counters/n", ""), fmt.Sprintf(`{"value":%d}`, i+1))
				node := answeredBy(t, c, d.url)
				if status, location := press(t, c, d.url+"/nodes/"+node+"/"+command+"?back=%2Fcart"); status != 303 || location != "/cart" {
					t.Fatalf("%s %s: %d to %q", command, node, status, location)
				}
				if i == defaultNodes-1 {
					break
				}
				if now := answeredBy(t, fresh(t), d.url); now == node {
					t.Errorf("%s takes new visitors after it was told to %s", node, command)
				}
				awaitPage(t, c, d.url+"/cart", 200, `aria-label="Start `+node+`"`)
				wantContains(t, fetch(t, c, "GET", d.url+"/api/session", ""), "Ada", fmt.Sprintf(`"n":%d`, i+1))
			}
			awaitPage(t, c, d.url+"/office/", 503, `aria-label="Start node2"`)
			awaitPage(t, c, d.url+"/", 503, "All nodes are stopped")
			awaitPage(t, c, d.url+"/api/session", 503, `{"error":"all nodes are stopped`)
			awaitPage(t, c, d.url+"/healthz", 503, `{"error":`)
			awaitPage(t, c, d.url+"/static/style.css", 200, "--accent")
			if status, _ := press(t, c, d.url+"/cart/mug/add"); status != 503 {
				t.Errorf("without nodes, the cart answers %d", status)
			}
			if status, location := press(t, c, d.url+"/nodes/node2/start?back=%2Fdevices"); status != 303 || location != "/devices" {
				t.Fatalf("start node2: %d to %q", status, location)
			}
			awaitPage(t, c, d.url+"/devices", 200, "Ada")
			wantContains(t, fetch(t, c, "GET", d.nodes["node2"]+"/api/session", ""), `"n":3`) // at its old address
			d.signal(os.Interrupt)
			if rest, err := d.wait(); err != nil || !strings.Contains(rest, "[node2] Stopped.") {
				t.Errorf("ended with %v: %s%s", err, rest, &d.stderr)
			}
		})
	}
}

func TestDemoNodeDiesByItself(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--nodes", "2")
	c := fresh(t)
	fetch(t, c, "POST", d.url+"/api/counters/n", "")
	if node, err := os.FindProcess(d.pid("node1")); err != nil || node.Kill() != nil {
		t.Fatal(err)
	}
	awaitPage(t, c, d.nodes["node2"], 200, "by itself: signal: killed")
	for range 4 {
		wantContains(t, fetch(t, c, "GET", d.url+"/api/session", ""), `"n":1`, `"node":"node2"`)
	}
	if status, _ := press(t, c, d.url+"/nodes/node1/start"); status != 303 {
		t.Errorf("start node1: %d", status)
	}
	awaitPage(t, c, d.url, 200, `aria-label="Stop node1"`)
	d.signal(os.Interrupt)
	if _, err := d.wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	wantContains(t, d.stderr.String(), "[node1] stopped by itself: signal: killed\n")
}

// Nobody survives the demo, however it ends.
func TestDemoKilled(t *testing.T) {
	t.Parallel()
	database := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	d := startDemo(t, "--database", database)
	d.pid("node1") // they are there
	d.signal(syscall.SIGKILL)
	d.wait()
	awaitGone(t, database)
}

// A node whose parent's end of its standard input closes ends in good order: what
// happens where no kernel kills it.
func TestDemoNodeEndsWithItsInput(t *testing.T) {
	t.Parallel()
	cmd := command(t, "serve", "--child", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "1h",
		"--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(stdin, `{"control":"http://127.0.0.1:1","token":"x"}`+"\n")
	p := startCommand(t, cmd)
	p.signal(os.Interrupt) // what a terminal sends to all is its parent's business
	c := newClient(t)
	wantContains(t, fetch(t, c, "POST", p.url+"/api/counters/n", ""), `{"value":1}`)
	if code, says, _ := health(t, c, p); code != 200 {
		t.Errorf("Ctrl-C: %d %s", code, says)
	}
	stdin.Close()
	if rest, err := p.wait(); err != nil || !strings.Contains(rest, "Stopped.") {
		t.Errorf("ended with %v: %s%s", err, rest, &p.stderr)
	}
}

func TestDemoInterruptedAtItsStart(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(wait.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := command(t, "demo", "--listen", "127.0.0.1:0")
			cmd.Env = append(cmd.Env, "TMPDIR="+dir)
			var errs strings.Builder
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// It has to be a signal that it hears: until it listens to signals, one
			// ends it like any other program.
			for len(mustReadDir(t, dir)) == 0 {
				<-time.After(time.Millisecond)
			}
			<-time.After(wait) // to hit it at different moments; any outcome of the race is right
			cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil || errs.Len() > 0 {
				t.Errorf("ended with %v: %s", err, &errs)
			}
			if left := mustReadDir(t, dir); len(left) > 0 {
				t.Errorf("it left %v behind", left)
			}
			for _, args := range processes(t) {
				if strings.Contains(args, dir) {
					t.Errorf("it left %q behind", args)
				}
			}
		})
	}
}

func mustReadDir(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestTwoDemosAtOnce(t *testing.T) {
	t.Parallel()
	first, second := startDemo(t, "--nodes", "2"), startDemo(t, "--nodes", "2")
	a, b := newClient(t), newClient(t)
	fetch(t, a, "POST", first.url+"/api/counters/n", "")
	wantContains(t, fetch(t, b, "POST", second.url+"/api/counters/n", ""), `{"value":1}`)
	first.stop(os.Interrupt)
	wantContains(t, fetch(t, b, "POST", second.url+"/api/counters/n", ""), `{"value":2}`)
	second.stop(os.Interrupt)
}

// Other pages cannot press the buttons, and a node without a demo has none.
func TestDemoControlIsGuarded(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--nodes", "1")
	c := fresh(t)
	if status, _ := press(t, c, d.url+"/nodes/node1/stop", "Sec-Fetch-Site", "cross-site"); status != 403 {
		t.Errorf("from another site: %d", status)
	}
	for path, want := range map[string]int{"/nodes/node9/stop": 404, "/nodes/node1/isolate": 404, "/nodes/node1/x": 404, "/nodes/node1/start": 303} {
		if status, _ := press(t, c, d.url+path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	for back, want := range map[string]string{
		"": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example": "/", "/%09/evil.example": "/", "/cart": "/cart",
	} {
		if _, location := press(t, c, d.url+"/nodes/node1/start?back="+back); location != want {
			t.Errorf("back to %q leads to %q, want %q", back, location, want)
		}
	}
	wantContains(t, d.stop(os.Interrupt), "[node1] Stopped.")

	plain := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "0", "--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	if status, _ := press(t, c, plain.url+"/nodes/n/stop"); status != 404 {
		t.Errorf("a plain node: %d", status)
	}
	if page := fetch(t, c, "GET", plain.url, ""); strings.Contains(page, "/nodes/") {
		t.Error("a plain node has the buttons")
	}
	plain.stop(os.Interrupt)
}

func TestDemoOnOtherDatabases(t *testing.T) {
	for name, database := range map[string]func(*testing.T) string{
		"postgres": func(t *testing.T) string { return dbtest.Postgres(t) },
		"mysql":    func(t *testing.T) string { return mysqlURL(t, "mysql", dbtest.MySQL(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, "--nodes", "2", "--database", database(t))
			if strings.Contains(d.place, "://") {
				t.Errorf("it prints %q", d.place)
			}
			c := fresh(t)
			for i := range 4 {
				wantContains(t, fetch(t, c, "POST", d.url+"/api/counters/n", ""), fmt.Sprintf(`{"value":%d}`, i+1))
			}
			d.stop(os.Interrupt)
		})
	}
}

func TestDemoPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Setenv("TMPDIR", t.TempDir())
	_, errs, code := runCommand(t, "demo", "--listen", taken.Addr().String())
	wantContains(t, errs, taken.Addr().String(), "taken", "--listen")
	if code != 1 || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if left := mustReadDir(t, os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("it left %v behind", left)
	}
}

func TestDemoBadFlags(t *testing.T) {
	free := func(args ...string) []string { return append([]string{"demo", "--listen", "127.0.0.1:0"}, args...) }
	for _, c := range []struct {
		args []string
		code int
		word string
	}{
		{[]string{"demo", "x"}, 2, `"x"`},
		{[]string{"demo", "--bogus"}, 2, "--bogus"},
		{[]string{"demo", "--listen"}, 2, "--listen"},
		{[]string{"demo", "--listen", "nonsense"}, 2, "nonsense"},
		{[]string{"demo", "--listen", "127.0.0.1:99999"}, 2, "99999"},
		{free("--nodes", "0"), 2, "--nodes 0: want 1 to 16"},
		{free("--nodes", "100"), 2, "--nodes 100: want 1 to 16"},
		{free("--nodes", "-1"), 2, "--nodes -1"},
		{free("--nodes", "many"), 2, "--nodes"},
		{free("--database", "oracle://x"), 2, `"oracle"`},
		{free("--database", "sqlite::memory:"), 2, "--database"},
		{free("--database", "sqlite://:memory:"), 2, "--database"},
		{free("--database", "sqlite:/no/such/directory/x.db"), 1, "/no/such/directory"},
		{free("--database", "postgres://u:s3cret@127.0.0.1:1/x"), 1, "cannot connect"},
		{[]string{"serve", "--child", "--node", "n", "--database", "sqlite:x"}, 1, "--child"},
		{[]string{"health", "--url", "nonsense"}, 2, "--url"},
		{[]string{"health", "--url", "http://127.0.0.1:1/"}, 1, "refused"},
		{[]string{"health", "--timeout", "0"}, 2, "--timeout 0s"},
		{[]string{"help", "bogus"}, 2, "bogus"},
		{[]string{"bogus"}, 2, "bogus"},
		{[]string{"version", "x"}, 2, `"x"`},
	} {
		out, errs, code := runCommand(t, c.args...)
		if code != c.code || out != "" || !strings.Contains(errs, c.word) || !strings.HasPrefix(errs, "holdfast: ") || strings.Contains(errs, "s3cret") {
			t.Errorf("%v: exit code %d, want %d with %q: %s%s", c.args, code, c.code, c.word, out, errs)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	node := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "1h", "--database", "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	out, errs, code := runCommand(t, "health", "--url", node.url+"/healthz")
	if code != 0 || errs != "" || !strings.Contains(out, `"status":"ok"`) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	node.signal(syscall.SIGTERM)
	awaitDraining(t, newClient(t), node)
	out, errs, code = runCommand(t, "health", "--url", node.url+"/healthz")
	if code != 1 || out != "" || !strings.Contains(errs, "draining") {
		t.Errorf("draining: exit code %d: %s%s", code, out, errs)
	}
	node.signal(syscall.SIGTERM)
	node.wait()
}
