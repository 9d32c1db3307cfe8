package rules

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCitedTestsExist checks that each test which docs/scenarios.md names exists.
// It names them
//
//	`package.TestName`, `package.TestName/subtest` or `backendtest.Group/subtest`
//
// where a package is the last element of its path, and a subtest is a string in
// the package's tests or, of package backendtest, in its code.
func TestCitedTestsExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "scenarios.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, stringsOf := make(map[string]bool), make(map[string][]string)
	for _, f := range goFiles(t) {
		pkg := path.Base(f.dir)
		if !f.isTest() && pkg != "backendtest" {
			continue
		}
		for _, name := range f.functions() {
			tests[pkg+"."+name] = true
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					stringsOf[pkg] = append(stringsOf[pkg], s)
				}
			}
			return true
		})
	}
	cited := regexp.MustCompile("`([a-z]+)\\.([A-Z][^`/]*)(?:/([^`]*))?`").FindAllStringSubmatch(string(text), -1)
	if len(cited) < 100 {
		t.Errorf("docs/scenarios.md cites only %d tests: does it still have the form that this test reads?", len(cited))
	}
	row := regexp.MustCompile(`(?m)^\| [A-Z][0-9].*\| (.*) \|$`)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(m[1], "`") && !strings.Contains(m[1], "not here") {
			t.Errorf("docs/scenarios.md names no test, and gives no reason, in %s", m[0])
		}
	}
	for _, m := range cited {
		pkg, name, sub := m[1], m[2], m[3]
		known := tests[pkg+"."+name] || pkg == "backendtest" && slices.Contains(stringsOf[pkg], name)
		if !known || sub != "" && !slices.Contains(stringsOf[pkg], sub) {
			t.Errorf("docs/scenarios.md names %s, which does not exist", m[0])
		}
	}
}
