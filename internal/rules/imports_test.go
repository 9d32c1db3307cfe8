package rules

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImports holds packages to what they may import, directly or not.
// Entries are packages of this module, from its root, and modules.
func TestImports(t *testing.T) {
	core := []string{
		"github.com/google/uuid",
		"github.com/maypok86/otter/v2", // the cache; docs/design.md says why it is worth the exception
	}
	store := append(slices.Clone(core), "sessionstore")
	for pkg, allowed := range map[string][]string{
		"sessionstore":             core,
		"sessionstore/membackend":  store,
		"sessionstore/backendtest": store,
		"sessionstore/cborcodec":   append(slices.Clone(store), "github.com/fxamacker/cbor/v2", "github.com/x448/float16"),
		"idmanager":                store,
		"middleware":               store,
	} {
		t.Run(pkg, func(t *testing.T) {
			for _, p := range goList(t, "-deps", "./"+pkg) {
				if p.Standard || p.ImportPath == module+"/"+pkg {
					continue
				}
				name := p.Module.Path
				if name == module {
					name = strings.TrimPrefix(p.ImportPath, module+"/")
				}
				if !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s, perhaps indirectly; it may import the standard library and %v", pkg, p.ImportPath, allowed)
				}
			}
		})
	}
}

// drivers are the modules of database drivers.
var drivers = []string{"github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql", "modernc.org/sqlite"}

// TestOneDriverEach checks that who imports one dialect compiles no other
// dialect's driver.
func TestOneDriverEach(t *testing.T) {
	for pkg, own := range map[string]string{
		"migrations":          "",
		"sqlbackend":          "",
		"sqlbackend/postgres": "github.com/jackc/pgx/v5",
		"sqlbackend/mysql":    "github.com/go-sql-driver/mysql",
		"sqlbackend/sqlite":   "modernc.org/sqlite",
	} {
		t.Run(pkg, func(t *testing.T) {
			found := false
			for _, p := range goList(t, "-deps", "./"+pkg) {
				if p.Standard || !slices.Contains(drivers, p.Module.Path) {
					continue
				}
				found = true
				if p.Module.Path != own {
					t.Errorf("%s compiles %s", pkg, p.ImportPath)
				}
			}
			if found != (own != "") {
				t.Errorf("%s: a driver of its own: %t, want %t", pkg, found, own != "")
			}
		})
	}
}

// TestNobodyImportsPrograms checks that commands and examples are leaves.
func TestNobodyImportsPrograms(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, imports := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if program(imports) && imports != p.ImportPath {
				t.Errorf("%s imports %s", p.ImportPath, imports)
			}
		}
	}
}

func program(pkg string) bool {
	return strings.HasPrefix(pkg, module+"/cmd/") || strings.HasPrefix(pkg, module+"/examples/")
}

var update = flag.Bool("update", false, "rewrite docs/modules.txt")

// TestModules compares the modules that builds need with the list that is checked
// in, so that a new one does not go unnoticed.
func TestModules(t *testing.T) {
	var library, programs []string
	for _, p := range goList(t, "./...") {
		if program(p.ImportPath) {
			programs = append(programs, p.ImportPath)
		} else if !strings.HasPrefix(p.ImportPath, module+"/internal/") {
			library = append(library, p.ImportPath)
		}
	}
	seen := make(map[string]bool)
	var text strings.Builder
	text.WriteString("# Modules that a build of this module needs on Linux, each under the first heading\n" +
		"# that applies. Compared in CI; to write it anew: " + updateModules + "\n")
	for _, part := range []struct {
		title string
		args  []string
	}{
		{"packages for importing", append([]string{"-deps"}, library...)},
		{"commands and examples", append([]string{"-deps"}, programs...)},
		{"tests", []string{"-deps", "-test", "./..."}},
	} {
		text.WriteString("\n# " + part.title + "\n")
		var paths []string
		for _, p := range goList(t, part.args...) {
			if p.Module != nil && p.Module.Path != module && !seen[p.Module.Path] {
				seen[p.Module.Path] = true
				paths = append(paths, p.Module.Path)
			}
		}
		slices.Sort(paths)
		for _, p := range paths {
			text.WriteString(p + "\n")
		}
	}

	file := filepath.Join(root, "docs", "modules.txt")
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the modules needed are not those of docs/modules.txt.\n"+
			"See that each new one is worth it, that docs/design.md says so of direct ones, and run\n\t%s\nNeeded:\n%s", updateModules, &text)
	}
}

const updateModules = "go test ./internal/rules -run TestModules -update"

// TestDirectModulesAreExplained wants a word in docs/design.md about each module
// that a package here imports itself.
func TestDirectModulesAreExplained(t *testing.T) {
	design, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	modules := make(map[string]string) // by package
	for _, p := range goList(t, "-deps", "-test", "./...") {
		if p.Module != nil && p.Module.Path != module {
			modules[p.ImportPath] = p.Module.Path
		}
	}
	direct := make(map[string]bool)
	for _, p := range goList(t, "./...") {
		for _, imports := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if m := modules[imports]; m != "" && !direct[m] {
				direct[m] = true
				if !strings.Contains(string(design), strings.TrimPrefix(m, "github.com/")) {
					t.Errorf("docs/design.md does not mention %s, which %s imports: what does it do for us, and which alternative lost?", m, p.ImportPath)
				}
			}
		}
	}
}
