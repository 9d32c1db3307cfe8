package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// twoNodes starts two nodes on one database and lets one visitor use both, each
// request reading what the one before wrote (P4).
func twoNodes(t *testing.T, database string) {
	t.Helper()
	args := []string{"serve", "--listen", "127.0.0.1:0", "--drain", "0", "--migrate", "--database", database, "--node"}
	node1, node2 := start(t, append(args, "node1")...), start(t, append(args, "node2")...)
	c := newClient(t)
	wantContains(t, fetch(t, c, "POST", node1.url+"/api/login", `{"user":"Bob"}`), `"version":1`)
	wantContains(t, fetch(t, c, "GET", node2.url+"/api/session", ""), `"node":"node2"`, `"principal":"Bob"`, `"source":"database"`)
	wantContains(t, fetch(t, c, "POST", node2.url+"/api/counters/n", ""), `{"value":1}`)
	wantContains(t, fetch(t, c, "POST", node1.url+"/api/counters/n", ""), `{"value":2}`)
	wantContains(t, fetch(t, c, "PUT", node2.url+"/office/api/attributes/a", `"ü"`), `"version":1`)
	wantContains(t, fetch(t, c, "GET", node1.url+"/office/api/attributes/a", ""), `"ü"`)
	wantContains(t, fetch(t, c, "GET", node1.url+"/healthz", ""), `"status":"ok"`)
	wantContains(t, node1.stop(syscall.SIGTERM), "Stopped.")
	wantContains(t, fetch(t, c, "GET", node2.url+"/api/session", ""), `"n":2`)
	wantContains(t, fetch(t, c, "GET", node2.url+"/api/devices", ""), `"principal":"Bob"`, `"current":true`)
	wantContains(t, node2.stop(os.Interrupt), "Stopped.")
	// The session outlives its nodes.
	again := start(t, append(args, "node1")...)
	wantContains(t, fetch(t, c, "GET", again.url+"/api/session", ""), `"principal":"Bob"`, `"n":2`)
	again.stop(syscall.SIGTERM)
}

func TestServeSQLite(t *testing.T) {
	t.Parallel()
	twoNodes(t, "sqlite:"+filepath.Join(t.TempDir(), "a b?c.db"))
}

func TestServePostgres(t *testing.T) {
	t.Parallel()
	database := dbtest.Postgres(t)
	needsMigration(t, database)
	twoNodes(t, database)
}

func TestServeMySQL(t *testing.T) {
	t.Parallel()
	database := mysqlURL(t, "mysql", dbtest.MySQL(t))
	needsMigration(t, database)
	twoNodes(t, database)
}

func TestServeMariaDB(t *testing.T) {
	t.Parallel()
	database := mysqlURL(t, "mariadb", dbtest.MariaDB(t))
	needsMigration(t, database)
	twoNodes(t, database)
}

func mysqlURL(t *testing.T, scheme, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: scheme, User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: "/" + cfg.DBName}).String()
}

func needsMigration(t *testing.T, database string) {
	t.Helper()
	_, errs, code := runCommand(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--database", database)
	wantContains(t, errs, "--migrate")
	if code != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// A request in flight when the node is told to stop is answered, and counts.
func TestServeFinishesRequests(t *testing.T) {
	t.Parallel()
	args := []string{"serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "0", "--database", "sqlite:" + filepath.Join(t.TempDir(), "x.db")}
	node := start(t, args...)
	c := newClient(t)
	fetch(t, c, "POST", node.url+"/api/counters/n", "")
	slow := make(chan error, 1)
	go func() {
		resp, err := c.Post(node.url+"/api/counters/n?delay=3s", "", nil)
		if err == nil {
			defer resp.Body.Close()
			var body []byte
			if body, err = io.ReadAll(resp.Body); err == nil && string(body) != `{"value":2}`+"\n" {
				err = fmt.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		slow <- err
	}()
	for !strings.Contains(fetch(t, c, "GET", node.url+"/api/stats", ""), `"active_requests":1`) {
		select {
		case err := <-slow:
			t.Fatalf("the slow request ended before it was seen in flight: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	node.stop(syscall.SIGTERM)
	if err := <-slow; err != nil {
		t.Errorf("slow request: %v", err)
	}
	node = start(t, args...)
	wantContains(t, fetch(t, c, "GET", node.url+"/api/counters/n", ""), `{"value":2}`)
	node.stop(syscall.SIGTERM)
}

func TestServeBadInput(t *testing.T) {
	dir := t.TempDir()
	noFile := filepath.Join(dir, "text")
	if err := os.WriteFile(noFile, []byte(strings.Repeat("this is no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(args ...string) []string { return append([]string{"serve", "--listen", "127.0.0.1:0"}, args...) }
	on := func(database string) []string { return serve("--node", "n", "--database", database) }
	for _, c := range []struct {
		args  []string
		code  int
		words []string
	}{
		{serve(), 2, []string{"--node"}},
		{serve("--node", "n"), 2, []string{"--database", "sqlite:path"}},
		{serve("--node", "a.b", "--database", "sqlite:x"), 2, []string{"--node", `"a.b"`}},
		{serve("--node", strings.Repeat("n", 64), "--database", "sqlite:x"), 2, []string{"--node", "63"}},
		{serve("extra"), 2, []string{`"extra"`}},
		{serve("--node", "n", "--database", "sqlite:x", "--drain", "-1s"), 2, []string{"--drain"}},
		{serve("--node", "n", "--database", "sqlite:x", "--drain", "soon"), 2, []string{"--drain", "soon"}},
		{serve("--node", "n", "--database", "sqlite:x", "--outage", "panic"), 2, []string{"--outage", `"panic"`, "serve-cached"}},
		{serve("--node", "n", "--database", "sqlite:x", "--freshness", "fresh"), 2, []string{"--freshness", `"fresh"`, "strict"}},
		{serve("--node", "n", "--database", "sqlite:x", "--sweep", "0"), 2, []string{"--sweep 0s"}},
		{on("oracle://scott:tiger-s3cret@db/x"), 2, []string{`"oracle"`, "postgres://"}},
		{on("s3cret"), 2, []string{"sqlite:path"}},
		{on("postgres:s3cret@db"), 2, []string{"postgres://"}},
		{on("sqlite:"), 2, []string{"no path"}},
		{on("sqlite:" + dir), 1, []string{dir, "is a directory"}},
		{on("sqlite:" + dir + "/none/x.db"), 1, []string{dir + "/none", "no such file"}},
		{on("sqlite:" + noFile), 1, []string{noFile, "not a database"}},
		{on("postgres://u:p/s3cret@db/x"), 2, []string{"not a valid URL", "%2F"}},
		{on("postgres://u:s3cret@db:port/x"), 2, []string{"not a valid URL"}},
		{on("postgres://u:s3cret@db"), 2, []string{"names no database", "u:xxxxx@db"}},
		{on("postgres://u:s3cret@127.0.0.1:1/x"), 1, []string{"postgres://u@127.0.0.1:1/x", "cannot connect", "refused"}},
		{on("postgres://u@127.0.0.1:1/x?password=s3cret"), 1, []string{"cannot connect"}},
		{on("mysql://root:p@s3cret#ret@127.0.0.1:1/hf"), 2, []string{"not a valid URL"}},
		{on("mysql://root:1234/s3cret@127.0.0.1:1/hf"), 2, []string{"not a valid URL"}},
		{on("postgres://u:1234?s3cret@127.0.0.1:1/hf"), 2, []string{"not a valid URL"}},
		{on("postgres://u:a@s3cret/ret@127.0.0.1:1/hf"), 2, []string{"not a valid URL"}},
		{on("postgres://postgres:postgres@127.0.0.1:1/postgres"), 1, []string{"database postgres://postgres@127.0.0.1:1/postgres", "cannot connect"}},
		{on("postgres://u:s3cret@127.0.0.1:1/x?sslmode=sometimes"), 1, []string{"sslmode"}},
		{on("mysql://u:s3cret@127.0.0.1:1/x"), 1, []string{"mysql://u@127.0.0.1:1/x", "cannot connect", "refused"}},
		{on("mysql://u:s3cret@127.0.0.1:1/"), 2, []string{"names no database"}},
		{on("mariadb://u:s3cret@127.0.0.1:1/x?parseTime=perhaps"), 1, []string{"mariadb://u@127.0.0.1:1/x", "parameters"}},
		{on("mysql://u:s3cret@127.0.0.1:1/x?tls=nonsense"), 1, []string{"nonsense"}},
	} {
		out, errs, code := runCommand(t, c.args...)
		if code != c.code || out != "" || !strings.HasPrefix(errs, "holdfast: ") || strings.Count(errs, "\n") > 3 {
			t.Errorf("%v: exit code %d, want %d: %s%s", c.args, code, c.code, out, errs)
		}
		wantContains(t, errs, c.words...)
		if strings.Contains(errs, "s3cret") {
			t.Errorf("%v: the password is in %s", c.args, errs)
		}
	}
}

func TestServeSecureCookies(t *testing.T) {
	t.Parallel()
	database := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	for flag, want := range map[string]string{"--secure-cookies": "__Host-session=", "--secure-cookies=false": "session="} {
		node := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "0", "--database", database, flag)
		resp, err := newClient(t).Post(node.url+"/api/counters/n", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		cookie := resp.Header.Get("Set-Cookie")
		if !strings.HasPrefix(cookie, want) || strings.Contains(cookie, "; Secure") != (want != "session=") {
			t.Errorf("%s: cookie attributes of %d bytes are wrong", flag, len(cookie))
		}
		node.stop(syscall.SIGTERM)
	}
}

func TestServeStrictAndItsEnds(t *testing.T) {
	t.Parallel()
	node := start(t, "serve", "--listen", "127.0.0.1:0", "--drain", "0", "--node", "node1",
		"--database", "sqlite:"+filepath.Join(t.TempDir(), "a.db"), "--freshness", "strict", "--log-ends")
	c := newClient(t)
	wantContains(t, fetch(t, c, "POST", node.url+"/api/login", `{"user":"Bob"}`), `"version":1`)
	wantContains(t, fetch(t, c, "GET", node.url+"/api/session", ""), `"source":"database"`)
	wantContains(t, fetch(t, c, "GET", node.url+"/api/session", ""), `"source":"database"`)
	fetch(t, c, "POST", node.url+"/api/logout", "")
	if out := node.stop(syscall.SIGTERM); !regexp.MustCompile(`(?m)^ended [0-9a-f-]{36} shop invalidated$`).MatchString(out) {
		t.Errorf("no line about the logout: %q", out)
	}
}
