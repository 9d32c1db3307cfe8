package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// unsuitable are values of a connection's variables under which statements would fail,
// or do something else. Of a variable that is a list, one member is enough.
var unsuitable = []struct {
	variable string
	values   []string
	why      string
	instead  string
}{{
	"autocommit", []string{"OFF"},
	"nothing would commit a save of one statement",
	"add autocommit=1 to the DSN",
}, {
	// Those under whose collations the driver refuses to interpolate. It overlooks them
	// in charset= and in the server's settings.
	"character_set_client", []string{"big5", "cp932", "gb18030", "gb2312", "gbk", "sjis"},
	"a backslash may be part of a character, and data that the driver interpolates could become SQL",
	"add charset=utf8mb4 to the DSN",
}, {
	"character_set_client", []string{"binary", "swe7"}, // swe7 has letters in place of brackets
	"lists in JSON could not be read",
	"add charset=utf8mb4 to the DSN",
}, {
	"sql_safe_updates", []string{"ON"},
	"statements that change the rows of a list would fail",
	"add sql_safe_updates=0 to the DSN",
}, {
	"transaction_isolation", []string{"READ-UNCOMMITTED"},
	"loads would return what is never committed",
	"add transaction_isolation=%27READ-COMMITTED%27 to the DSN",
}, {
	"tx_isolation", []string{"READ-UNCOMMITTED"}, // what MariaDB before 11.1 calls it
	"loads would return what is never committed",
	"add tx_isolation=%27READ-COMMITTED%27 to the DSN",
}, {
	"sql_mode", []string{"EMPTY_STRING_IS_NULL"}, // MariaDB only
	"large sessions without a principal could not be stored, and a search in all applications would find none",
	"leave it out of sql_mode, in the DSN or in the server's settings",
}}

// checkConnection returns an error if the connections are set up in an unsuitable way.
// It asks one of them.
func checkConnection(ctx context.Context, db *sql.DB) error {
	names := make([]string, len(unsuitable))
	for i, u := range unsuitable {
		names[i] = u.variable
	}
	is, err := variables(ctx, db, names...)
	if err != nil {
		return fmt.Errorf("mysql: read the connection's variables: %w", err)
	}
	for _, u := range unsuitable {
		for value := range strings.SplitSeq(is[u.variable], ",") {
			if slices.Contains(u.values, value) {
				return fmt.Errorf("mysql: %s is %s, so %s: %s", u.variable, value, u.why, u.instead)
			}
		}
	}
	return nil
}

// variables returns the values of a connection's variables, of those that the server knows.
func variables(ctx context.Context, db *sql.DB, names ...string) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, "SHOW SESSION VARIABLES WHERE Variable_name IN ('"+strings.Join(names, "', '")+"')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		values[name] = value
	}
	return values, rows.Err()
}
