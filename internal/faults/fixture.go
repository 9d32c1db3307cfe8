package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	holdfastmysql "github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// A fixture lets package dbtest, which is made for tests, serve the harness, which is
// also a command: it is what dbtest needs of a test.
type fixture struct {
	testing.TB // nil: calling what is not below would panic
	cleanups   []func()
	failed     error
}

// errFixture is what stops a fixture's goroutine where a test would end.
type errFixture struct{ error }

// use calls f with the fixture and returns what made it fail.
func (x *fixture) use(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case errFixture:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}

func (x *fixture) fatal(err error)          { x.failed = err; panic(errFixture{err}) }
func (x *fixture) Helper()                  {}
func (x *fixture) Context() context.Context { return context.Background() }
func (x *fixture) Failed() bool             { return false } // the servers' logs are not wanted
func (x *fixture) Logf(string, ...any)      {}
func (x *fixture) Cleanup(f func())         { x.cleanups = append(x.cleanups, f) }
func (x *fixture) Errorf(format string, args ...any) {
	x.failed = errors.Join(x.failed, fmt.Errorf(format, args...))
}
func (x *fixture) Fatalf(format string, args ...any) { x.fatal(fmt.Errorf(format, args...)) }
func (x *fixture) Fatal(args ...any)                 { x.fatal(errors.New(fmt.Sprint(args...))) }
func (x *fixture) Skip(args ...any)                  { x.fatal(fmt.Errorf("%w: %s", ErrNoServer, fmt.Sprint(args...))) }

// close removes what was started.
func (x *fixture) close() error {
	x.failed = nil
	for len(x.cleanups) > 0 {
		f := x.cleanups[len(x.cleanups)-1]
		x.cleanups = x.cleanups[:len(x.cleanups)-1]
		if err := x.use(f); err != nil {
			return err
		}
	}
	return x.failed
}

// openStandby starts a PostgreSQL primary and a synchronous standby.
func openStandby() (*database, error) {
	x := new(fixture)
	d := &database{title: "standby", kind: "postgres", name: "postgres"}
	var pair *dbtest.Replicas
	err := x.use(func() { pair = dbtest.Replicated(x, false) })
	if err == nil {
		d.servers = []string{pair.Primary.Address, pair.Standby.Address}
		d.admin, err = sql.Open("pgx", pair.URL)
	}
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	d.failOver = func() error { return x.use(func() { pair.Primary.Kill(x); pair.Promote(x) }) }
	d.close = func() error {
		closePool(d.admin)
		return x.close()
	}
	return d, nil
}

// openGalera starts a Galera cluster of three nodes.
func openGalera() (*database, error) {
	x := new(fixture)
	d := &database{title: "galera", kind: "mariadb", name: "holdfast"}
	var cluster *dbtest.Cluster
	err := x.use(func() { cluster = dbtest.Galera(x) })
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	var cfgs []*mysql.Config
	for i, node := range cluster.Nodes {
		d.servers = append(d.servers, node.Address)
		cfg, err := mysql.ParseDSN(cluster.DSN(i))
		if err != nil {
			return nil, errors.Join(err, x.close())
		}
		cfg.Logger = &mysql.NopLogger{} // a server that is away is no news here
		cfgs = append(cfgs, cfg)
	}
	connector, err := holdfastmysql.NewConnector(cfgs...)
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	d.admin = sql.OpenDB(connector)
	d.failOver = func() error { return x.use(func() { cluster.Nodes[0].Kill(x) }) }
	d.close = func() error {
		closePool(d.admin)
		return x.close()
	}
	return d, nil
}
