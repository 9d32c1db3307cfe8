package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3"
)

// A Replicas is a PostgreSQL primary and its standby, which hold the library's tables.
type Replicas struct {
	Primary, Standby *Node
	// URL names both and asks for the one that accepts writes.
	URL string
}

// Replicated starts a PostgreSQL primary with a streaming standby. A commit is
// acknowledged when both have it, unless asynchronous is set: then the standby may
// lag behind.
func Replicated(t testing.TB, asynchronous bool) *Replicas {
	t.Helper()
	n := newNetwork(t)
	r := &Replicas{}
	r.Primary = n.start(t, "primary", "5432/tcp", "/var/lib/postgresql", dockertest.RunOptions{
		Repository: "postgres", Tag: "18",
		Env: []string{"POSTGRES_PASSWORD=holdfast"},
		Cmd: []string{"postgres", "-c", "fsync=off", "-c", "max_connections=300"},
	})
	primary := nodeURL(r.Primary.Address)
	n.await(t, "the primary does not answer", func() error { return pingPostgres(primary) })
	r.Primary.Exec(t, "bash", "-c", `echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"`)
	onPostgres(t, primary, "SELECT pg_reload_conf()")
	r.Standby = n.start(t, "standby", "5432/tcp", "/var/lib/postgresql", dockertest.RunOptions{
		Repository: "postgres", Tag: "18", User: "postgres",
		Env: []string{"PGPASSWORD=holdfast", "PRIMARY=" + r.Primary.Name},
		Entrypoint: []string{"bash", "-c", `
mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
pg_basebackup --host="$PRIMARY" --username=postgres --pgdata="$PGDATA" --write-recovery-conf --checkpoint=fast &&
exec postgres -c fsync=off -c max_connections=300`},
	})
	n.await(t, "the standby does not answer", func() error { return pingPostgres(nodeURL(r.Standby.Address)) })
	// Not before there is a standby: nothing could be committed.
	if !asynchronous {
		onPostgres(t, primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
		onPostgres(t, primary, "SELECT pg_reload_conf()")
	}
	n.await(t, "the standby does not stream", func() error { return streams(primary, asynchronous) })
	r.URL = nodeURL(r.Primary.Address+","+r.Standby.Address) + "&target_session_attrs=read-write&connect_timeout=2"
	migratePostgres(t, primary)
	return r
}

// Promote makes the standby a primary, and returns when it accepts writes.
func (r *Replicas) Promote(t testing.TB) {
	t.Helper()
	onPostgres(t, nodeURL(r.Standby.Address), "SELECT pg_promote(true, 60)")
}

// Part makes the standby of an asynchronous pair receive nothing any more.
func (r *Replicas) Part(t testing.TB) {
	t.Helper()
	standby := nodeURL(r.Standby.Address)
	onPostgres(t, standby, "ALTER SYSTEM SET primary_conninfo = ''")
	onPostgres(t, standby, "SELECT pg_reload_conf()")
	for deadline := time.Now().Add(startWait); streams(nodeURL(r.Primary.Address), true) == nil; {
		if time.Now().After(deadline) {
			t.Fatal("dbtest: the standby goes on streaming")
		}
	}
}

func nodeURL(addresses string) string {
	return fmt.Sprintf("postgres://postgres:holdfast@%s/postgres?sslmode=disable", addresses)
}

func streams(primary string, asynchronous bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, primary)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var state string
	err = conn.QueryRow(ctx, "SELECT state || ' ' || sync_state FROM pg_stat_replication").Scan(&state)
	if want := map[bool]string{false: "streaming sync", true: "streaming async"}[asynchronous]; err == nil && state != want {
		err = fmt.Errorf("state is %q, want %q", state, want)
	}
	return err
}

// PgBouncer starts a PgBouncer in transaction mode in front of the database of a URL
// that Postgres or MigratedPostgres returned. It hands each statement to the server
// connection that was longest idle, so that successive statements meet different
// ones. Settings are lines of its section [pgbouncer].
func PgBouncer(t testing.TB, url string, settings ...string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	host, port := cfg.Host, cfg.Port
	if ip := postgresServer.ip(); ip != "" { // as containers reach it
		host, port = ip, 5432
	} else if host == "localhost" || net.ParseIP(host).IsLoopback() { // which is itself, to a container
		host = "host.docker.internal"
	}
	n := defaultBridge(t)
	const image = "holdfast-test-pgbouncer"
	n.build(t, image, "FROM postgres:18\nRUN apt-get update && apt-get install -y --no-install-recommends pgbouncer\n")
	ini := fmt.Sprintf(`[databases]
%s = host=%s port=%d user=%s password=%s
[pgbouncer]
listen_addr = *
listen_port = 6432
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
default_pool_size = 4
min_pool_size = 4
max_client_conn = 300
ignore_startup_parameters = extra_float_digits
%s
`, cfg.Database, host, port, cfg.User, cfg.Password, strings.Join(settings, "\n"))
	node := n.start(t, "pgbouncer", "6432/tcp", "", dockertest.RunOptions{
		Repository: image, Tag: "latest", User: "postgres", Env: []string{"INI=" + ini}, ExposedPorts: []string{"6432/tcp"},
		ExtraHosts: []string{"host.docker.internal:host-gateway"},
		Entrypoint: []string{"bash", "-c", `printf %s "$INI" >/tmp/pgbouncer.ini && exec pgbouncer /tmp/pgbouncer.ini`},
	})
	through := fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", cfg.User, cfg.Password, node.Address, cfg.Database)
	n.await(t, "PgBouncer does not answer", func() error { return pingPostgres(through) })
	return through
}

// galeraNodes is how many nodes the cluster of [Galera] has.
const galeraNodes = 3

// A Cluster is a Galera cluster of MariaDB, whose nodes all accept writes. It holds
// the library's tables.
type Cluster struct {
	Nodes [galeraNodes]*Node
}

// Galera starts a Galera cluster.
func Galera(t testing.TB) *Cluster {
	t.Helper()
	n := newNetwork(t)
	const image = "holdfast-test-galera"
	n.build(t, image, `FROM mariadb:11
RUN if [ ! -e /usr/lib/galera/libgalera_smm.so ] || ! command -v wsrep_sst_rsync || ! command -v rsync; then \
	apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends galera-4 mariadb-server rsync && \
	rm -rf /var/lib/mysql/*; fi
`)
	c := &Cluster{}
	for i := range c.Nodes {
		name, first := fmt.Sprintf("node%d", i+1), ""
		if i > 0 {
			first = c.Nodes[0].Name
		}
		c.Nodes[i] = n.start(t, name, "3306/tcp", "/var/lib/mysql", dockertest.RunOptions{
			Repository: image, Tag: "latest",
			Env: []string{"MARIADB_ROOT_PASSWORD=holdfast"},
			Cmd: []string{
				"mariadbd", "--bind-address=*", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
				"--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--max-connections=300",
				"--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-sst-method=rsync",
				"--wsrep-cluster-name=holdfast", "--wsrep-cluster-address=gcomm://" + first,
				"--wsrep-node-name=" + name, "--wsrep-node-address=" + n.name + "-" + name,
				// A node that died is given up after a second or two.
				"--wsrep-provider-options=gcache.size=32M;evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1.5S;evs.inactive_timeout=PT3S;evs.inactive_check_period=PT0.3S",
			},
		})
		// One after the other: each takes over the state of those before.
		n.await(t, name+" does not join", func() error { return joined(c.DSN(i), i+1) })
	}
	onMySQL(t, strings.Replace(c.DSN(0), "/holdfast?", "/?", 1), "CREATE DATABASE holdfast")
	migrateMySQL(t, c.DSN(0))
	return c
}

// DSN is how to connect to a node, by its index.
func (c *Cluster) DSN(i int) string {
	return "root:holdfast@tcp(" + c.Nodes[i].Address + ")/holdfast?wsrep_sync_wait=1&interpolateParams=true"
}

// joined reports whether a node is part of a cluster of so many.
func joined(dsn string, size int) error {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	cfg.DBName, cfg.Logger, cfg.Params = "", &mysql.NopLogger{}, nil
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	ctx, cancel := cleanupContext()
	defer cancel()
	for name, want := range map[string]string{
		"wsrep_ready": "ON", "wsrep_local_state_comment": "Synced", "wsrep_cluster_size": fmt.Sprint(size),
	} {
		var got string
		if err := db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&name, &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	return nil
}
