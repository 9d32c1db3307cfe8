// Command testreport reads what "go test -json" writes and prints what go test
// would have printed without -json, then every test that was skipped, with its
// reason. It fails if a test or build did.
//
//	go test -json ./... | go run ./internal/testreport
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// An event is a line of "go doc test2json".
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// A pkg is a package whose tests are running.
type pkg struct {
	path   string
	output []event           // in the order it was written
	ended  map[string]string // by test: pass, fail or skip
}

// report copies the events in r to w as text. It returns false if something failed.
func report(r io.Reader, w io.Writer) (ok bool, err error) {
	ok = true
	running := make(map[string]*pkg)
	skipped := make(map[string][]string) // by reason
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil { // not from go test, then
				fmt.Fprint(w, line)
			} else if e.Action == "build-output" {
				fmt.Fprint(w, e.Output)
			} else if e.Action == "build-fail" {
				ok = false
			} else {
				p := running[e.Package]
				if p == nil {
					p = &pkg{path: e.Package, ended: make(map[string]string)}
					running[e.Package] = p
				}
				if p.add(e) {
					p.print(w, e.Action == "fail")
					p.skips(skipped)
					delete(running, e.Package)
					ok = ok && e.Action != "fail"
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	for _, p := range running { // go test itself was killed
		p.print(w, true)
		ok = false
	}

	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "\nSKIPPED: %s\n", reason)
		for _, test := range skipped[reason] {
			fmt.Fprintf(w, "\t%s\n", test)
		}
	}
	return ok, nil
}

// add notes an event and reports whether it was the package's last.
func (p *pkg) add(e event) (last bool) {
	switch e.Action {
	case "output":
		p.output = append(p.output, e)
	case "pass", "fail", "skip":
		p.ended[e.Test] = e.Action
		return e.Test == ""
	}
	return false
}

// print writes what go test would print: of a package that passed its closing
// line, else the output of the tests that did not pass, and of none in particular.
func (p *pkg) print(w io.Writer, failed bool) {
	for _, e := range p.output {
		switch {
		case marker.MatchString(e.Output):
		case e.Test == "" && !failed:
			if closing.MatchString(e.Output) {
				fmt.Fprint(w, e.Output)
			}
		case failed && p.ended[e.Test] != "pass" && p.ended[e.Test] != "skip":
			fmt.Fprint(w, e.Output)
		}
	}
}

var (
	marker  = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME|ATTR) `)
	closing = regexp.MustCompile(`^(ok  |\?   |---)`)
	where   = regexp.MustCompile(`^\S+\.go:\d+: `)
)

// skips adds the tests that were skipped to those of other packages.
func (p *pkg) skips(to map[string][]string) {
	for _, test := range slices.Sorted(maps.Keys(p.ended)) {
		if test == "" || p.ended[test] != "skip" {
			continue
		}
		var said []string
		for _, e := range p.output {
			if e.Test != test {
				continue
			}
			if text := strings.TrimSpace(e.Output); !marker.MatchString(text) && !strings.HasPrefix(text, "--- SKIP") {
				said = append(said, where.ReplaceAllString(text, ""))
			}
		}
		reason := cmp.Or(strings.Join(said, " "), "no reason given")
		to[reason] = append(to[reason], p.path+" "+test)
	}
}
