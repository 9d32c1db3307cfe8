package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// clockOffset is the environment variable that a node's wall clock is set off by.
const clockOffset = "HOLDFAST_CLOCK_OFFSET"

// offsetSource is added to package time of the nodes' build. Neither the kernel nor
// libfaketime can set the wall clock of one Go process: time namespaces have none,
// and Go asks no C library.
const offsetSource = `package time

import "syscall"

var wallOffset = func() int64 {
	text, _ := syscall.Getenv("` + clockOffset + `")
	d, _ := ParseDuration(text)
	return int64(d / Second)
}()
`

// Build compiles the holdfast command into dir. race adds the race detector, which
// makes nodes several times slower. clocks makes wall clocks that can be set off; the
// monotonic clock, and so all durations, stay as they are. It compiles most of the
// standard library anew.
func Build(ctx context.Context, dir string, race, clocks bool) (binary string, err error) {
	module, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/holdfast-sessions/holdfast")
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "holdfast")
	args := []string{"build", fmt.Sprintf("-race=%t", race), "-o", binary}
	if clocks {
		overlay, err := writeOverlay(ctx, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	_, err = output(ctx, module, "go", append(args, "./cmd/holdfast")...)
	return binary, err
}

// writeOverlay writes files that replace some of package time, and returns the one
// that says so to go build.
func writeOverlay(ctx context.Context, dir string) (file string, err error) {
	goroot, err := output(ctx, "", "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	original := filepath.Join(goroot, "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	// In time.Now.
	const reading = "\tsec, nsec, mono := runtimeNow()\n"
	if n := bytes.Count(source, []byte(reading)); n != 1 {
		return "", fmt.Errorf("%s reads the clock in %d places, want 1: teach this how this version of Go does it", original, n)
	}
	patched := bytes.Replace(source, []byte(reading), []byte(reading+"\tsec += wallOffset\n"), 1)
	replace := make(map[string]string)
	for name, file := range map[string]struct {
		of   string
		text []byte
	}{
		"time.go":   {original, patched},
		"offset.go": {filepath.Join(filepath.Dir(original), "holdfast_offset.go"), []byte(offsetSource)},
	} {
		replace[file.of] = filepath.Join(dir, name)
		if err := os.WriteFile(replace[file.of], file.text, 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, overlay, 0o600)
}

// output runs a command and returns what it prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(out.String()), nil
}
