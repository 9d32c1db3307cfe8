package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// thorough says that tests may take many minutes.
var thorough = os.Getenv("HOLDFAST_TEST_FAULTS") == "1"

// binary is the holdfast command that all tests of this package run.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "holdfast-faults-build-")
		if err == nil {
			defer os.RemoveAll(dir)
			binary, err = Build(context.Background(), dir, true, thorough)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// survive runs the harness and wants every promise kept.
func survive(t *testing.T, cfg Config) {
	t.Helper()
	t.Parallel() // they mostly wait
	cfg.Binary, cfg.Log = binary, t.Logf
	report, err := Run(t.Context(), cfg)
	if errors.Is(err, ErrNoServer) && os.Getenv("HOLDFAST_REQUIRE_DB") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	report.Print(&text)
	t.Logf("\n%s", &text)
	if len(report.Violations) > 0 {
		t.Error("promises were broken, see above")
	}
	if len(report.Delays) == 0 || report.Sessions < 10 || report.Ended < 5 {
		t.Error("there was hardly anything to check")
	}
}

// TestFaults injects into each database's nodes, and the database, what most often
// happens to them (P1, P2, P3, P4, P6, P7, P11, P14).
func TestFaults(t *testing.T) {
	for _, database := range Databases {
		t.Run(database, func(t *testing.T) {
			survive(t, Config{Database: database, Browsers: 1, Faults: []string{"restart", "kill", "freeze", "feed", "lock", "db-kill"}})
		})
	}
}

// TestAllFaults injects each fault once, on each database (P12 beside the others).
func TestAllFaults(t *testing.T) {
	onlyThorough(t)
	for _, database := range Databases {
		t.Run(database, func(t *testing.T) { survive(t, Config{Database: database}) })
	}
}

// TestClusters kills the database server that nodes write to, where there are others.
func TestClusters(t *testing.T) {
	onlyThorough(t)
	for _, database := range Clusters {
		t.Run(database, func(t *testing.T) {
			survive(t, Config{Database: database, Faults: []string{"none", "kill", "cut", "failover"}})
		})
	}
}

// TestStrict wants registers to be linearizable also for who holds the same cookies
// on another device.
func TestStrict(t *testing.T) {
	onlyThorough(t)
	survive(t, Config{Database: "postgres", Strict: true, Faults: []string{"none", "kill", "feed", "cut"}})
}

func onlyThorough(t *testing.T) {
	t.Helper()
	if !thorough {
		t.Skip("HOLDFAST_TEST_FAULTS is not 1")
	}
}
