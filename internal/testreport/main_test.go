package main

import (
	"strings"
	"testing"
)

// The events are as go test wrote them, shortened.
func TestReport(t *testing.T) {
	const events = `{"Action":"start","Package":"m/good"}
{"Action":"run","Package":"m/good","Test":"TestA"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"    a_test.go:3: talk\n"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"--- PASS: TestA (0.00s)\n"}
{"Action":"pass","Package":"m/good","Test":"TestA","Elapsed":0}
{"Action":"output","Package":"m/good","Test":"TestB/x","Output":"    a_test.go:9: no database here\n"}
{"Action":"output","Package":"m/good","Test":"TestB/x","Output":"    --- SKIP: TestB/x (0.00s)\n"}
{"Action":"skip","Package":"m/good","Test":"TestB/x","Elapsed":0}
{"Action":"pass","Package":"m/good","Test":"TestB","Elapsed":0}
{"Action":"skip","Package":"m/good","Test":"TestC","Elapsed":0}
{"Action":"output","Package":"m/good","Output":"PASS\n"}
{"Action":"output","Package":"m/good","Output":"ok  \tm/good\t0.1s\n"}
{"Action":"pass","Package":"m/good","Elapsed":0.1}
`
	const good = "ok  \tm/good\t0.1s\n"
	const skips = "\nSKIPPED: no database here\n\tm/good TestB/x\n\nSKIPPED: no reason given\n\tm/good TestC\n"
	for name, test := range map[string]struct {
		events, want string
		ok           bool
	}{
		"passes and skips": {events, good + skips, true},
		"fails": {events + `{"Action":"output","Package":"m/bad","Test":"TestA","Output":"    a_test.go:3: fine\n"}
{"Action":"pass","Package":"m/bad","Test":"TestA"}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"    a_test.go:7: wrong\n"}
{"Action":"fail","Package":"m/bad","Test":"TestB"}
{"Action":"output","Package":"m/bad","Output":"FAIL\tm/bad\t0.1s\n"}
{"Action":"fail","Package":"m/bad"}
`, good + "--- FAIL: TestB (0.00s)\n    a_test.go:7: wrong\nFAIL\tm/bad\t0.1s\n" + skips, false},
		"panics": {`{"Action":"run","Package":"m/bad","Test":"TestB"}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"panic: oh\n"}
{"Action":"fail","Package":"m/bad"}
`, "panic: oh\n", false},
		"does not build": {`{"ImportPath":"m/bad","Action":"build-output","Output":"bad.go:3: syntax error\n"}
{"ImportPath":"m/bad","Action":"build-fail"}
{"Action":"output","Package":"m/bad","Output":"FAIL\tm/bad [build failed]\n"}
{"Action":"fail","Package":"m/bad","FailedBuild":"m/bad"}
`, "bad.go:3: syntax error\nFAIL\tm/bad [build failed]\n", false},
		"is killed":          {`{"Action":"output","Package":"m/bad","Test":"TestB","Output":"half a line"}`, "half a line", false},
		"not from go test":   {"go: something\n", "go: something\n", true},
		"nothing whatsoever": {"", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			ok, err := report(strings.NewReader(test.events), &got)
			if ok != test.ok || err != nil || got.String() != test.want {
				t.Errorf("report returned %t, %v and wrote\n%s\nnot\n%s", ok, err, got.String(), test.want)
			}
		})
	}
}
