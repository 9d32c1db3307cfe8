package backendtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCitations compares the subtests with the documentation they cite, so that
// neither can change without the other.
func TestCitations(t *testing.T) {
	backend := comments(t, "../backend.go")
	spec := backend + " " + comments(t, "../record.go") + " " + comments(t, "../events.go") + " " + comments(t, "../nodes.go")
	seen := make(map[string]bool)
	covered := make([]bool, len(backend))
	for _, g := range groups() {
		for _, s := range g.subtests {
			if name := g.name + "/" + s.name; seen[name] {
				t.Errorf("two subtests are named %q", name)
			} else {
				seen[name] = true
			}
			if !strings.Contains(spec, s.cites) {
				t.Errorf("%s/%s cites what package sessionstore does not say: %q", g.name, s.name, s.cites)
			}
			for at := 0; ; {
				i := strings.Index(backend[at:], s.cites)
				if i < 0 {
					break
				}
				for j := range s.cites {
					covered[at+i+j] = true
				}
				at += i + len(s.cites)
			}
		}
	}

	for _, loc := range regexp.MustCompile(`returns \[Err\w+\]|\bnever\b|\bmust\b|\bexactly\b|\bignores?\b|\bno error\b`).FindAllStringIndex(backend, -1) {
		if !covered[loc[0]] {
			t.Errorf("no subtest cites the promise in %q", backend[max(0, loc[0]-60):min(len(backend), loc[1]+60)])
		}
	}
	at := 0
	for _, sentence := range sentences(backend) {
		i := at + strings.Index(backend[at:], sentence)
		at = i + len(sentence)
		if !slices.Contains(covered[i:at], true) && !untestable[sentence] {
			t.Errorf("no subtest cites anything of %q", sentence)
		}
	}
	for sentence := range untestable {
		if !strings.Contains(backend, sentence) {
			t.Errorf("listed as untestable, but not in the documentation: %q", sentence)
		}
	}
}

// untestable are the sentences that promise nothing, or nothing that a caller of
// an unknown backend could observe.
var untestable = map[string]bool{
	"Its sentences are its specification: package backendtest holds every implementation to each of them.": true,
}

func comments(t *testing.T, file string) string {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	ast.Inspect(f, func(n ast.Node) bool {
		if group, ok := n.(*ast.CommentGroup); ok {
			text = append(text, strings.Fields(group.Text())...)
		}
		return true
	})
	return strings.Join(text, " ")
}

func sentences(text string) []string {
	end := regexp.MustCompile(`\. [A-Z]`)
	var all []string
	for {
		loc := end.FindStringIndex(text)
		if loc == nil {
			return append(all, text)
		}
		all = append(all, text[:loc[0]+1])
		text = text[loc[0]+2:]
	}
}
