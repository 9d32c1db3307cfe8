package rules

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFilesAreNamedAfterWhatTheyHold refuses names that say nothing.
func TestFilesAreNamedAfterWhatTheyHold(t *testing.T) {
	empty := []string{
		"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models", "misc", "base", "shared",
	}
	for _, f := range goFiles(t) {
		names := append(strings.Split(f.dir, "/"), strings.TrimSuffix(f.ast.Name.Name, "_test"),
			strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test"))
		for _, name := range names {
			if slices.Contains(empty, name) {
				t.Errorf("%s: %q says nothing about what is there", f.path, name)
			}
		}
	}
}

// TestFilesAreShort refuses Go files that nobody reads to the end.
func TestFilesAreShort(t *testing.T) {
	const long, tooLong = 700, 800 // lines
	for name, text := range files(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		if n := strings.Count(text, "\n"); n > tooLong {
			t.Errorf("%s has %d lines, more than %d", name, n, tooLong)
		} else if n > long {
			t.Logf("%s has %d lines, soon too many", name, n)
		}
	}
}

// TestNothingIsLeftForLater refuses notes to oneself, and what only one machine has.
func TestNothingIsLeftForLater(t *testing.T) {
	// Put together here, so that this file does not contain them.
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	here := regexp.MustCompile(`\.\./sha` + `red/|/wo` + `rk/(main|shared)`)
	for name, text := range files(t) {
		for i, line := range strings.Split(text, "\n") {
			if m := later.FindString(line); m != "" {
				t.Errorf("%s:%d: %s", name, i+1, m)
			}
			if m := here.FindString(line); m != "" && name != ".ci/run" {
				t.Errorf("%s:%d: %s is nowhere but on one machine", name, i+1, m)
			}
		}
	}
}

// TestNoTestSleeps refuses time.Sleep in tests but in the bubbles of testing/synctest,
// where it takes no time.
func TestNoTestSleeps(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.isTest() {
			continue
		}
		bubbles := f.calls("synctest", "Test")
		for _, sleep := range f.calls("time", "Sleep") {
			inside := slices.ContainsFunc(bubbles, func(bubble *ast.CallExpr) bool {
				return bubble.Pos() <= sleep.Pos() && sleep.End() <= bubble.End()
			})
			// What is no test itself is for those of its file, in their bubbles.
			if !inside && (f.inTest(sleep) || len(bubbles) == 0) {
				t.Errorf("%s: time.Sleep outside of testing/synctest: wait for what is to happen instead", f.line(sleep))
			}
		}
	}
}

// TestNoGlobalState refuses init functions.
func TestNoGlobalState(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, name := range f.functions() {
			if name == "init" && !f.isTest() {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// TestSmallestProgramRuns compares the program in the README, which no compiler
// reads, with the one that is built.
func TestSmallestProgramRuns(t *testing.T) {
	all := files(t)
	_, rest, _ := strings.Cut(all["README.md"], "```go\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if _, built, _ := strings.Cut(all["examples/hello/main.go"], "\n"); !ok || shown != built {
		t.Error("the first program in README.md is not examples/hello/main.go")
	}
	if n := strings.Count(shown, "\n"); n > 40 {
		t.Errorf("the smallest program has %d lines, more than 40", n)
	}
}
