package rules

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheMapHasEveryFile compares the tables of ARCHITECTURE.md that say what the files of
// a package hold with the files that there are.
func TestTheMapHasEveryFile(t *testing.T) {
	all := files(t)
	tables := regexp.MustCompile("(?m)^\\| In `(.+)` \\| holds \\|\n((?:\\|.*\n)*)").FindAllStringSubmatch(all["ARCHITECTURE.md"], -1)
	if len(tables) == 0 {
		t.Error("ARCHITECTURE.md has no table of a package's files: does it still have the form that this test reads?")
	}
	for _, table := range tables {
		pkg, rows := table[1], table[2]
		var patterns []string
		for _, m := range regexp.MustCompile("`([a-z_*]+\\.go)`").FindAllStringSubmatch(rows, -1) {
			patterns = append(patterns, m[1])
		}
		found := make(map[string]bool)
		for name := range all {
			base := path.Base(name)
			if path.Dir(name) != pkg || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || base == "doc.go" {
				continue
			}
			i := slices.IndexFunc(patterns, func(pattern string) bool {
				match, _ := path.Match(pattern, base)
				return match
			})
			if i < 0 {
				t.Errorf("ARCHITECTURE.md does not say what %s holds", name)
				continue
			}
			found[patterns[i]] = true
		}
		for _, pattern := range patterns {
			if !found[pattern] {
				t.Errorf("ARCHITECTURE.md names %s in %s, which does not exist", pattern, pkg)
			}
		}
	}
}
