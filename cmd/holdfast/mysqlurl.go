package main

import (
	"database/sql/driver"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/go-sql-driver/mysql"

	mysqlbackend "github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// mysqlConnector connects to the server that u names, or to the one of several that
// accepts writes.
func mysqlConnector(u *url.URL) (driver.Connector, error) {
	if !hasManyHosts(u) {
		cfg, err := mysqlConfig(u)
		if err != nil {
			return nil, err
		}
		return mysql.NewConnector(cfg)
	}
	var cfgs []*mysql.Config
	for host := range strings.SplitSeq(u.Host, ",") {
		one := *u
		one.Host = host
		cfg, err := mysqlConfig(&one)
		if err != nil {
			return nil, err
		}
		if !u.Query().Has("timeout") {
			cfg.Timeout = hostTimeout
		}
		cfgs = append(cfgs, cfg)
	}
	return mysqlbackend.NewConnector(cfgs...)
}

// mysqlConfig translates a URL of one host, with the parameters of go-sql-driver/mysql, into
// the configuration that the driver makes of its own kind of DSN.
func mysqlConfig(u *url.URL) (*mysql.Config, error) {
	parts := mysql.NewConfig()
	parts.User = u.User.Username()
	parts.Passwd, _ = u.User.Password()
	parts.Net = "tcp"
	port := u.Port()
	if port == "" {
		port = "3306"
	}
	host := u.Hostname()
	if host == "" {
		host = "127.0.0.1"
	}
	parts.Addr = net.JoinHostPort(host, port)
	parts.DBName = strings.TrimPrefix(u.Path, "/")

	// The driver reads parameters only as part of a DSN.
	query := u.Query()
	if !query.Has("interpolateParams") {
		query.Set("interpolateParams", "true") // saves a round trip per statement
	}
	if !query.Has("timeout") {
		query.Set("timeout", connectTimeout.String())
	}
	read, err := mysql.ParseDSN("/?" + query.Encode())
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	read.User, read.Passwd, read.Net, read.Addr, read.DBName = parts.User, parts.Passwd, parts.Net, parts.Addr, parts.DBName
	read.Logger = &mysql.NopLogger{} // it would repeat what is returned
	return read, nil
}
