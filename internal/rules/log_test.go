package rules

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logged returns the messages that the file gives to a logger.
func (f goFile) logged() []string {
	methods := []string{"Debug", "Info", "Warn", "Error", "LogAttrs"}
	var messages []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if sel.Sel.Name != "log" {
			if on, ok := sel.X.(*ast.SelectorExpr); !ok || on.Sel.Name != "Logger" || !slices.Contains(methods, sel.Sel.Name) {
				return true
			}
		}
		for _, arg := range call.Args {
			if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					messages = append(messages, s)
				}
				break
			}
		}
		return true
	})
	return messages
}

// TestLogIsDocumented compares what the library logs with docs/operating.md, which tells
// operators what to do about each message.
func TestLogIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## The log")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := make(map[string]bool)
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1) {
				documented[m[1]] = false
			}
		}
	}
	for _, f := range goFiles(t) {
		library := slices.Contains([]string{"sessionstore", "idmanager", "middleware", "sqlbackend", "migrations"}, strings.Split(f.dir, "/")[0])
		if f.isTest() || !library {
			continue
		}
		for _, message := range f.logged() {
			if _, ok := documented[message]; !ok {
				t.Errorf("%s logs %q, which docs/operating.md does not explain", f.path, message)
			}
			documented[message] = true
		}
	}
	for message, used := range documented {
		if !used {
			t.Errorf("docs/operating.md explains %q, which nobody logs", message)
		}
	}
}
