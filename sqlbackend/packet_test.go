package sqlbackend_test

import (
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A save that is larger than the server takes fails alone, although the server hangs up on
// it. Not parallel to others: it sets what all new connections to the server get.
func TestASaveTooLargeForTheServerFailsAlone(t *testing.T) {
	for _, name := range []string{"MySQL", "MariaDB"} {
		t.Run(name, func(t *testing.T) {
			db := databases[name](t)
			var usual int
			if err := db.raw.QueryRow("SELECT @@GLOBAL.max_allowed_packet").Scan(&usual); err != nil {
				t.Fatal(err)
			}
			if _, err := db.raw.Exec("SET GLOBAL max_allowed_packet = 1048576"); err != nil {
				t.Fatal(err)
			}
			defer db.raw.Exec("SET GLOBAL max_allowed_packet = ?", usual)
			b := db.open(t).(groupBackend)
			for range 5 {
				recs := createMany(t, b, "")[:16]
				conds := make([]sessionstore.Condition, len(recs))
				for i, r := range recs {
					r.Data = make([]byte, 200_000)
					conds[i] = sessionstore.Condition{Version: 1, SecretHash: r.SecretHash}
				}
				recs[1].Data = make([]byte, 1_060_000)
				for i, err := range b.UpdateTogether(t.Context(), recs, conds) {
					if (err == nil) == (i == 1) {
						t.Errorf("save %d of %d bytes: %v", i, len(recs[i].Data), err)
					}
				}
			}
		})
	}
}
