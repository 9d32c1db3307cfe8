package rules

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// longestPackageComment is what fits on a screen beside the code it introduces.
const longestPackageComment = 20 // lines

// TestPackageComments wants exactly one package comment in each package, and long
// ones in doc.go.
func TestPackageComments(t *testing.T) {
	comments := make(map[string][]goFile) // by directory
	for _, f := range goFiles(t) {
		if f.isTest() {
			continue
		}
		comments[f.dir] = comments[f.dir][:len(comments[f.dir]):len(comments[f.dir])]
		if f.ast.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f)
		lines := strings.Count(f.ast.Doc.Text(), "\n")
		if lines > longestPackageComment && path.Base(f.path) != "doc.go" {
			t.Errorf("%s: the package comment has %d lines, more than %d: move it to doc.go", f.path, lines, longestPackageComment)
		}
		begin := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			begin = "Command " + path.Base(f.dir) + " "
		}
		if !strings.HasPrefix(f.ast.Doc.Text(), begin) {
			t.Errorf("%s: the package comment does not begin with %q", f.path, begin)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s: %d package comments, want 1", dir, len(files))
		}
	}
}

// TestExportedHaveComments wants a comment on all that users see: exported
// identifiers of packages that can be imported, and the fields of their configs,
// which also say what they default to.
func TestExportedHaveComments(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.isTest() || f.ast.Name.Name == "main" || slices.Contains(strings.Split(f.dir, "/"), "internal") {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Name.IsExported() && exportedReceiver(decl) {
					wantDoc(t, f, decl.Name, decl.Doc)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() {
							doc := spec.Doc
							if doc == nil && !decl.Lparen.IsValid() {
								doc = decl.Doc
							}
							wantDoc(t, f, spec.Name, doc)
							checkFields(t, f, spec)
						}
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							if name.IsExported() && spec.Doc == nil && spec.Comment == nil && decl.Doc == nil {
								t.Errorf("%s: %s has no comment", f.line(name), name.Name)
							}
						}
					}
				}
			}
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	typ := f.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

// wantDoc wants a comment that begins with the name, after an article perhaps.
func wantDoc(t *testing.T, f goFile, name *ast.Ident, doc *ast.CommentGroup) {
	text := doc.Text()
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	if !regexp.MustCompile(`^` + name.Name + `\b`).MatchString(text) {
		t.Errorf("%s: %s has no comment that begins with its name", f.line(name), name.Name)
	}
}

func checkFields(t *testing.T, f goFile, spec *ast.TypeSpec) {
	switch typ := spec.Type.(type) {
	case *ast.StructType:
		config := spec.Name.Name == "Config"
		if !config && spec.Name.Name != "Options" {
			return
		}
		for _, field := range typ.Fields.List {
			for _, name := range field.Names {
				if !name.IsExported() {
					t.Errorf("%s: %s has a field that is not exported", f.line(name), spec.Name.Name)
				} else if text := field.Doc.Text() + field.Comment.Text(); text == "" {
					t.Errorf("%s: field %s has no comment", f.line(name), name.Name)
				} else if config && !strings.Contains(strings.ReplaceAll(text, "\n", " "), "Defaults to ") {
					t.Errorf("%s: field %s does not say what it defaults to", f.line(name), name.Name)
				}
			}
		}
	case *ast.InterfaceType:
		if n := typ.Methods.NumFields(); n > 8 {
			t.Errorf("%s: interface %s has %d methods, more than 8", f.line(spec), spec.Name.Name, n)
		}
		for _, method := range typ.Methods.List {
			for _, name := range method.Names {
				if name.IsExported() {
					wantDoc(t, f, name, method.Doc)
				}
			}
		}
	}
}

// TestMutexesSayWhatTheyGuard wants a comment beside each mutex of a struct.
func TestMutexesSayWhatTheyGuard(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.isTest() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			typ, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range typ.Fields.List {
				sel, ok := field.Type.(*ast.SelectorExpr)
				if ok && strings.HasSuffix(sel.Sel.Name, "Mutex") && field.Doc.Text()+field.Comment.Text() == "" {
					t.Errorf("%s: a mutex that does not say what it guards", f.line(field))
				}
			}
			return true
		})
	}
}

// TestPromisesAreNamed wants each promise of ARCHITECTURE.md to be named by a
// test, and cited by the code that keeps it.
func TestPromisesAreNamed(t *testing.T) {
	const promises = 14
	tested, cited := make(map[string]bool), make(map[string]bool)
	promise := regexp.MustCompile(`(?:^|[^A-Za-z0-9])(P[0-9]+)`)
	for _, f := range goFiles(t) {
		where := cited
		if f.isTest() || f.dir == "sessionstore/backendtest" {
			where = tested
		}
		note := func(text string) {
			for _, m := range promise.FindAllStringSubmatch(text, -1) {
				where[m[1]] = true
			}
		}
		for _, group := range f.ast.Comments {
			note(group.Text())
		}
		for _, decl := range f.ast.Decls {
			if decl, ok := decl.(*ast.FuncDecl); ok && f.isTest() {
				note(decl.Name.Name)
			}
		}
		if f.dir == "sessionstore/backendtest" { // cited by its subtests
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					note(lit.Value)
				}
				return true
			})
		}
	}
	for i := range promises {
		name := "P" + string([]byte{'0' + byte((i+1)/10), '0' + byte((i+1)%10)})
		name = strings.Replace(name, "P0", "P", 1)
		if !tested[name] {
			t.Errorf("no test names %s", name)
		}
		if !cited[name] {
			t.Errorf("no code cites %s", name)
		}
	}
}
