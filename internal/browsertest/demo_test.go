package browsertest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// startDemo builds and starts "holdfast demo" on a free port, and returns its
// front's address. At the end of the test it is interrupted and must end in good
// order.
func startDemo(t *testing.T, args ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "holdfast")
	build := exec.Command("go", "build", "-o", binary, "./cmd/holdfast")
	build.Dir = filepath.Join("..", "..") // the library's module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the demo: %v\n%s", err, out)
	}
	demo := exec.Command(binary, append([]string{"demo", "--listen", "127.0.0.1:0"}, args...)...)
	demo.Stderr = os.Stderr
	stdout, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	drained := make(chan struct{})
	t.Cleanup(func() {
		if err := demo.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			<-drained
		}
		if err := demo.Wait(); err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	})
	address := regexp.MustCompile(`^front (http://\S+)$`)
	front := ""
	for lines.Scan() {
		if m := address.FindStringSubmatch(lines.Text()); m != nil {
			front = m[1]
		}
		if strings.Contains(lines.Text(), "Ctrl-C") { // the last line of its beginning
			go func() {
				defer close(drained)
				for lines.Scan() { // all of it, before Wait closes the pipe
				}
			}()
			return front
		}
	}
	t.Fatal("the demo ended without printing its address")
	return ""
}
