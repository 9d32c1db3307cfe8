package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.." // of the repository
	module = "github.com/holdfast-sessions/holdfast"
)

// textFiles are the extensions of the files that people write; "" for scripts.
var textFiles = map[string]bool{
	".go": true, ".md": true, ".sql": true, ".html": true, ".css": true, ".svg": true, ".mod": true,
	".sh": true, ".yml": true, ".yaml": true, ".txt": true, ".conf": true, ".golden": true, "": true,
}

// files returns the project's text files of all its modules, by their slash-
// separated path from the root.
func files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // a test of another package cleaned up
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			if entry.Name() == ".git" || entry.Name() == "fuzz" {
				return fs.SkipDir
			}
			return nil
		}
		if entry.Name() == ".git" { // of a worktree
			return nil
		}
		if !textFiles[path.Ext(strings.TrimPrefix(entry.Name(), "."))] || !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.IndexByte(text, 0) < 0 { // no binary of "go build"
			all[rel] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A goFile is a parsed Go file.
type goFile struct {
	path string // slash-separated, from the root
	dir  string
	ast  *ast.File
	fset *token.FileSet
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// line returns where n is, for messages.
func (f goFile) line(n ast.Node) string {
	p := f.fset.Position(n.Pos())
	return p.String()
}

// functions returns the names of the file's functions, without methods.
func (f goFile) functions() []string {
	var names []string
	for _, decl := range f.ast.Decls {
		if decl, ok := decl.(*ast.FuncDecl); ok && decl.Recv == nil {
			names = append(names, decl.Name.Name)
		}
	}
	return names
}

// calls returns the file's calls of pkg.name.
func (f goFile) calls(pkg, name string) []*ast.CallExpr {
	var calls []*ast.CallExpr
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
					calls = append(calls, call)
				}
			}
		}
		return true
	})
	return calls
}

// inTest reports whether n is in one of the file's test functions.
func (f goFile) inTest(n ast.Node) bool {
	return slices.ContainsFunc(f.ast.Decls, func(decl ast.Decl) bool {
		fn, ok := decl.(*ast.FuncDecl)
		return ok && strings.HasPrefix(fn.Name.Name, "Test") && fn.Pos() <= n.Pos() && n.End() <= fn.End()
	})
}

// goFiles returns the parsed Go files of all modules in the repository.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var all []goFile
	for name, text := range files(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		all = append(all, goFile{path: name, dir: path.Dir(name), ast: f, fset: fset})
	}
	return all
}

// A listed package is what "go list -json" says about one.
type listed struct {
	ImportPath                         string
	Standard                           bool
	Module                             *struct{ Path string }
	Imports, TestImports, XTestImports []string
}

// goList runs "go list" in the library's module, as on Linux: what a build needs
// differs a little between systems.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Module,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
