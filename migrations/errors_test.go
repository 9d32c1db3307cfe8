package migrations

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckTellsVersionsAndWhatToDo(t *testing.T) {
	for _, test := range []struct {
		stored, latest int64
		want           error
		says           []string
	}{
		{0, 3, ErrSchemaMissing, []string{"needs version 3", "run migrations.Up"}},
		{2, 3, ErrSchemaOlder, []string{"has version 2", "needs 3", "run migrations.Up"}},
		{4, 3, ErrSchemaNewer, []string{"has version 4", "knows 3", "newer library"}},
	} {
		err := check(test.stored, test.latest)
		if !errors.Is(err, test.want) {
			t.Errorf("check(%d, %d) = %v, want %v", test.stored, test.latest, err, test.want)
			continue
		}
		for _, s := range test.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("check(%d, %d) = %v, want it to say %q", test.stored, test.latest, err, s)
			}
		}
	}
	if err := Check(Latest); err != nil {
		t.Errorf("Check(Latest) = %v", err)
	}
}

func TestLatestIsTheLastFileOfEachDialect(t *testing.T) {
	for _, dialect := range []Dialect{Postgres, MySQL, SQLite} {
		entries, err := files.ReadDir(string(dialect))
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != Latest {
			t.Errorf("%s has %d migrations, Latest is %d", dialect, len(entries), Latest)
		}
	}
}
