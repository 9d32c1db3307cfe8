package sqlbackend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func TestCompileNumbersParameters(t *testing.T) {
	const text = "SELECT {when} WHERE a = @a AND b = @b AND c = @a"
	for numbered, want := range map[string]statement{
		"":  {text: "SELECT now() + ? WHERE a = ? AND b = ? AND c = ?", params: []string{"slack", "a", "b", "a"}},
		"$": {text: "SELECT now() + $1 WHERE a = $2 AND b = $3 AND c = $2", params: []string{"slack", "a", "b"}},
	} {
		d := &Dialect{Numbered: numbered, Snippets: map[string]string{"when": "{now} + @slack", "now": "now()"}}
		st, err := d.compile(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if st.text != want.text || !slices.Equal(st.params, want.params) {
			t.Errorf("with %q: %s %v, want %s %v", numbered, st.text, st.params, want.text, want.params)
		}
	}
}

func TestLiteralsAreWrittenIntoTheText(t *testing.T) {
	d := &Dialect{Literals: true}
	st, err := d.compile("SELECT a FROM @rows WHERE b < @limit AND NOT @omits AND c = @limit AND d = @data", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := args{"rows": jsonList(`["AB"]`), "limit": int64(-7), "omits": true, "data": []byte("it's \\ ? \xff")}
	text, values, err := st.with(a)
	if want := `SELECT a FROM '["AB"]' WHERE b < -7 AND NOT true AND c = -7 AND d = x'69742773205c203f20ff'`; text != want || len(values) > 0 || err != nil {
		t.Errorf("%s, %v, %v; want %s", text, values, err, want)
	}
	for what, data := range map[string]any{
		"a text of somebody's": "of which nothing is known",
		"much data":            make([]byte, literalBytes/2),
	} {
		a["data"] = data
		text, values, err = st.with(a)
		if text != st.text || len(values) != 5 || err != nil {
			t.Errorf("with %s: %d bytes of text, %d values, %v; want %s with its values", what, len(text), len(values), err, st.text)
		}
	}
	for _, text := range []string{"SELECT '?' WHERE @a", "INSERT INTO t VALUES [[(@a, '?')]]", "INSERT INTO t VALUES [[(@a)]] ON DUPLICATE KEY UPDATE a = '?'"} {
		if _, err := d.compile(text, nil); err == nil {
			t.Errorf("a question mark in a literal is taken for a placeholder: %s", text)
		}
	}
}

func TestLiteralsOfRows(t *testing.T) {
	d := &Dialect{Literals: true}
	st, err := d.compile("INSERT INTO t VALUES [[(@id, @data)]] ON DUPLICATE KEY UPDATE n = @n", nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := []args{{"id": int64(1), "data": []byte{}}, {"id": int64(2), "data": []byte(nil)}}
	text, values, err := st.withRows(rows, args{"n": int64(3)})
	if want := `INSERT INTO t VALUES (1, x''), (2, NULL) ON DUPLICATE KEY UPDATE n = 3`; text != want || len(values) > 0 || err != nil {
		t.Errorf("%s, %v, %v; want %s", text, values, err, want)
	}
	rows[1]["data"] = "a text"
	text, values, err = st.withRows(rows, args{"n": int64(3)})
	if want := `INSERT INTO t VALUES (?, ?), (?, ?) ON DUPLICATE KEY UPDATE n = ?`; text != want || len(values) != 5 || err != nil {
		t.Errorf("%s, %v, %v; want %s with its values", text, values, err, want)
	}
}

func TestCompileRefusesAnUnknownSnippet(t *testing.T) {
	if _, err := new(Dialect).compile("SELECT {nonsense}", nil); err == nil || !strings.Contains(err.Error(), "{nonsense}") {
		t.Errorf("error is %v", err)
	}
}

func TestStatementNeedsAllItsValues(t *testing.T) {
	st := &statement{params: []string{"id", "app"}}
	if _, err := st.values(args{"id": 1}); err == nil || !strings.Contains(err.Error(), "@app") {
		t.Errorf("error is %v", err)
	}
}

func TestDurationsAreStoredInMicroseconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: unlimited, 1: 1, time.Microsecond: 1, time.Microsecond + 1: 2, 1<<63 - 1: (1<<63-1)/1000 + 1,
	} {
		us, err := fromDuration("Idle", d)
		if err != nil || us != want {
			t.Errorf("%d ns: %d µs and %v, want %d", d, us, err, want)
		}
	}
	if _, err := fromDuration("Idle", -1); err == nil || !strings.Contains(err.Error(), "Idle") {
		t.Errorf("a negative duration: error is %v", err)
	}
	if d := toDuration(unlimited); d != 0 {
		t.Errorf("no limit is loaded as %s", d)
	}
}

func TestTouchesAreMergedAndInOrder(t *testing.T) {
	a, b := sessionstore.Key{ID: sessionstore.ID{1}, App: "a"}, sessionstore.Key{ID: sessionstore.ID{1}, App: "b"}
	c := sessionstore.Key{ID: sessionstore.ID{0, 9}, App: "z"}
	got := latest([]sessionstore.Touch{{Key: b, Ago: 3}, {Key: a, Ago: 5}, {Key: b, Ago: 2}, {Key: c, Ago: -1}, {Key: b, Ago: 7}})
	want := []sessionstore.Touch{{Key: c}, {Key: a, Ago: 5}, {Key: b, Ago: 2}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
