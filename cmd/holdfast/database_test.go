package main

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// The first of two hosts is not there.
func TestServeManyHosts(t *testing.T) {
	for name, database := range map[string]string{
		"PostgreSQL": dbtest.Postgres(t),
		"MySQL":      mysqlURL(t, "mysql", dbtest.MySQL(t)),
		"MariaDB":    mysqlURL(t, "mariadb", dbtest.MariaDB(t)),
	} {
		t.Run(name, func(t *testing.T) {
			twoNodes(t, strings.Replace(database, "@", "@127.0.0.1:1,", 1))
		})
	}
}

func TestParseAddress(t *testing.T) {
	for address, want := range map[string]string{
		"postgres://u:p@h1:5432,h2:5433/db?sslmode=disable": "h1:5432,h2:5433",
		"postgres://h1,h2:1,[::1]:5432/db":                  "h1,h2:1,[::1]:5432",
		"postgres://u:a,b@h/db":                             "h",
		"postgres://u:a,b@h1:1,h2:2/db,x":                   "h1:1,h2:2",
		"mysql://u@h/db?x=a,b":                              "h",
		"postgres://u:p@h1:5432,/db":                        "",
		"postgres://u:p@,h1/db":                             "",
		"postgres://u:p@h1:x,h2/db":                         "",
	} {
		u, err := parseAddress(address)
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: parsed as %s", address, u)
		case want != "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case want != "" && (u.Host != want || u.String() != address):
			t.Errorf("%s: host %q, written back as %s", address, u.Host, u)
		}
	}
}

func TestPostgresConfig(t *testing.T) {
	for address, want := range map[string]struct {
		hosts   int
		timeout time.Duration
		checked bool
	}{
		"postgres://u@h1/db?sslmode=disable":                                         {1, connectTimeout, false},
		"postgres://u@h1:1,h2:2/db?sslmode=disable":                                  {2, hostTimeout, true},
		"postgres://u@h1,h2,h3/db?sslmode=disable&target_session_attrs=primary":      {3, hostTimeout, true},
		"postgres://u@h1,h2/db?sslmode=disable&target_session_attrs=any":             {2, hostTimeout, false},
		"postgres://u@h1:1,h2/db?sslmode=disable&connect_timeout=7&pool_max_conns=3": {2, 7 * time.Second, true},
	} {
		u, err := parseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := postgresConfig(u)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		c := cfg.ConnConfig
		if 1+len(c.Fallbacks) != want.hosts || c.ConnectTimeout != want.timeout || (c.ValidateConnect != nil) != want.checked {
			t.Errorf("%s: %d hosts, timeout %v, checked %t", address, 1+len(c.Fallbacks), c.ConnectTimeout, c.ValidateConnect != nil)
		}
	}
}

// What is wrong with each of the hosts is said, and no password.
func TestServeManyHostsBadInput(t *testing.T) {
	for address, want := range map[string]struct {
		code  int
		words []string
	}{
		"postgres://u:s3cret@127.0.0.1:1,127.0.0.1:2/x?sslmode=disable": {1, []string{"postgres://u@127.0.0.1:1,127.0.0.1:2/x", "127.0.0.1:1 ", "127.0.0.1:2 ", "refused"}},
		"mysql://u:s3cret@127.0.0.1:1,127.0.0.1:2/x":                    {1, []string{"mysql://u@127.0.0.1:1,127.0.0.1:2/x", "127.0.0.1:1: ", "127.0.0.1:2: ", "refused"}},
		"mysql://u:s3cret@127.0.0.1:1,127.0.0.1:2":                      {2, []string{"names no database", "u:xxxxx@127.0.0.1:1,"}},
		"postgres://u:1,s3cret/x@127.0.0.1:1,127.0.0.1:2/x":             {2, []string{"not a valid URL"}},
		"postgres://u:1,2/s3cret@127.0.0.1:1/x":                         {2, []string{"not a valid URL"}},
		"postgres://u:p@s3cret@127.0.0.1:1,127.0.0.1:2/x":               {2, []string{"not a valid URL"}},
		"mysql://u:s3cret@127.0.0.1:1,127.0.0.1:s3/x":                   {2, []string{"not a valid URL"}},
	} {
		out, errs, code := runCommand(t, "serve", "--listen", "127.0.0.1:0", "--node", "n", "--database", address)
		if code != want.code || out != "" || !strings.HasPrefix(errs, "holdfast: ") {
			t.Errorf("%s: exit code %d, want %d: %s%s", address, code, want.code, out, errs)
		}
		wantContains(t, errs, want.words...)
		if strings.Contains(errs, "s3cret") {
			t.Errorf("%s: the password is in %s", address, errs)
		}
	}
}

func TestMySQLConnector(t *testing.T) {
	for address, ok := range map[string]bool{
		"mysql://u:p@h1,h2:3307/db": true, "mysql://u:p@h1/db": true, "mysql://u:p@h1,h2/db?timeout=x": false,
	} {
		u, err := parseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mysqlConnector(u); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if hasManyHosts(&url.URL{Host: "h1:1"}) {
		t.Error("one host is many")
	}
}

func TestMySQLConfig(t *testing.T) {
	for text, want := range map[string]string{
		"mysql://u:p@db/x":                       "u:p@tcp(db:3306)/x",
		"mysql://u:p%40%2F%3A%23@db:3307/x":      "u:p@/:#@tcp(db:3307)/x",
		"mariadb://u@[::1]:3307/x":               "u@tcp([::1]:3307)/x",
		"mysql://db/x%2Fy":                       "tcp(db:3306)/x%2Fy",
		"mysql://u:p@/x":                         "u:p@tcp(127.0.0.1:3306)/x",
		"mysql://u:p@db/x?loc=Europe%2FBerlin":   "u:p@tcp(db:3306)/x",
		"mysql://u:p@db/x?clientFoundRows=true":  "u:p@tcp(db:3306)/x",
		"mysql://u:p@db/x?interpolateParams=0":   "u:p@tcp(db:3306)/x",
		"mysql://u:p@db/x?timeout=3s&tls=custom": "",
		"mysql://u:p@db/x?strict=true":           "",
		"mysql://u:p@db.example.com/x?tls=true":  "u:p@tcp(db.example.com:3306)/x",
		"mysql://u:p@db/x?charset=utf8mb4,utf8":  "u:p@tcp(db:3306)/x",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := mysqlConfig(u)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		dsn, params, _ := strings.Cut(cfg.FormatDSN(), "?")
		if dsn != want {
			t.Errorf("%s: %s, want %s", text, dsn, want)
		}
		query := u.Query()
		if query.Has("charset") && !strings.Contains(params, "charset="+query.Get("charset")) {
			t.Errorf("%s: parameters %s", text, params)
		}
		if cfg.ClientFoundRows != query.Has("clientFoundRows") || cfg.InterpolateParams == query.Has("interpolateParams") ||
			query.Has("loc") && cfg.Loc.String() != "Europe/Berlin" {
			t.Errorf("%s: parameters of %s", text, cfg.FormatDSN())
		}
		if query.Get("tls") == "true" && cfg.TLS.ServerName != u.Hostname() {
			t.Errorf("%s: the certificate is to be of %q", text, cfg.TLS.ServerName)
		}
		// The driver takes it, and finds the same in it.
		back, err := mysql.ParseDSN(cfg.FormatDSN())
		if err != nil || back.Passwd != cfg.Passwd || back.DBName != cfg.DBName {
			t.Errorf("%s: read back as %+v: %v", text, back, err)
		}
	}
}
