package mysql_test

import (
	"context"
	"net"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// A server that is frozen is still connected to, by its kernel, and says nothing then.
func TestAConnectorPassesOverAServerThatIsSilent(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	frozen, other := listen(), listen()
	reached := make(chan struct{})
	go func() {
		if conn, err := other.Accept(); err == nil {
			conn.Close()
			close(reached)
		}
	}()
	var cfgs []*driver.Config
	for _, l := range []net.Listener{frozen, other} {
		cfg := driver.NewConfig()
		cfg.Net, cfg.Addr, cfg.Timeout = "tcp", l.Addr().String(), 50*time.Millisecond
		cfg.Logger = &driver.NopLogger{}
		cfgs = append(cfgs, cfg)
	}
	connector, err := mysql.NewConnector(cfgs...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := connector.Connect(ctx); err == nil {
		t.Error("connected to a server that says nothing")
	}
	select {
	case <-reached:
	case <-ctx.Done():
		t.Error("the second server was not tried in 5s")
	}
}
