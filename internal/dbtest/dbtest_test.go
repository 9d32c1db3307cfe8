package dbtest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// TestWithoutDocker runs itself where no Docker answers.
func TestWithoutDocker(t *testing.T) {
	if os.Getenv("DBTEST_INNER") != "" {
		dbtest.Postgres(t)
		t.Fatal("there is a database after all")
	}
	for required, want := range map[string]string{"": "--- SKIP", "1": "--- FAIL"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWithoutDocker$", "-test.v")
		cmd.Env = append(os.Environ(), "DBTEST_INNER=1", "DOCKER_HOST=unix:///nonexistent.sock",
			"HOLDFAST_TEST_POSTGRES=", "HOLDFAST_REQUIRE_DB="+required)
		out, _ := cmd.CombinedOutput() // the exit status is the tests', looked for below
		if !strings.Contains(string(out), want) || !strings.Contains(string(out), "set HOLDFAST_TEST_POSTGRES") {
			t.Errorf("with HOLDFAST_REQUIRE_DB=%q:\n%s", required, out)
		}
	}
}
