package main

import (
	"cmp"
	"database/sql/driver"
	"errors"
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
	host, port := cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "3306")
	query := u.Query()
	if query.Has("strict") { // the driver panics
		return nil, errors.New("parameters: strict: the driver has no such parameter any more; sql_mode is the server's word for it")
	}
	if !query.Has("interpolateParams") {
		query.Set("interpolateParams", "true") // Galera demands it, and it saves large statements a round trip
	}
	if !query.Has("timeout") {
		query.Set("timeout", connectTimeout.String())
	}
	// The driver reads parameters only as part of a DSN, and tls together with the address.
	// It takes charset as it stands, and wants the commas of a list.
	params := strings.ReplaceAll(query.Encode(), "%2C", ",")
	cfg, err := mysql.ParseDSN("tcp(" + net.JoinHostPort(host, port) + ")/?" + params)
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	cfg.Logger = &mysql.NopLogger{} // it would repeat what is returned
	return cfg, nil
}
