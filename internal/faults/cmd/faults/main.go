// Command faults breaks a cluster while clients use it, and reports what they saw.
//
//	go -C internal/faults run ./cmd/faults                                    each fault once, on each database
//	go -C internal/faults run ./cmd/faults -database postgres -duration 10m   at random for ten minutes
//	go -C internal/faults run ./cmd/faults -database mysql -faults kill,freeze -seed 42
//	go -C internal/faults run ./cmd/faults -measure delay
//	go -C internal/faults run ./cmd/faults -measure reads -database postgres
//
// It prints tables in Markdown, and exits with 1 if a promise was broken.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/faults"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

var errBroken = errors.New("promises were broken")

func run(ctx context.Context) error {
	var cfg faults.Config
	var names []string
	for _, f := range faults.Faults() {
		names = append(names, f.Name)
	}
	databases := flag.String("database", strings.Join(faults.Databases, ","), "which to run on, separated by commas")
	chosen := flag.String("faults", "", "which to inject, separated by commas, of "+strings.Join(names, ", ")+"; none given: all")
	measure := flag.String("measure", "", "measure instead: delay or reads")
	samples := flag.Int("samples", 0, "how many sessions, or requests, to measure (100 and 500)")
	race := flag.Bool("race", true, "build the nodes with the race detector")
	flag.IntVar(&cfg.Nodes, "nodes", 3, "how many nodes")
	flag.IntVar(&cfg.Browsers, "browsers", 2, "how many browsers of each kind")
	flag.BoolVar(&cfg.Strict, "strict", false, "nodes confirm each read with the database")
	flag.DurationVar(&cfg.Duration, "duration", 0, "how long to inject faults at random; 0 for each once")
	flag.Uint64Var(&cfg.Seed, "seed", 0, "of what is random; 0 for the time")
	flag.Parse()
	if *chosen != "" {
		cfg.Faults = strings.Split(*chosen, ",")
	}
	cfg.Log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
	}
	dir, err := os.MkdirTemp("", "holdfast-faults-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if cfg.Binary, err = faults.Build(ctx, dir, *race && *measure == "", *measure == ""); err != nil {
		return err
	}

	var delays []faults.Delays
	var broken error
	for _, database := range strings.Split(*databases, ",") {
		cfg.Database = database
		switch *measure {
		case "delay":
			more, err := faults.MeasureDelays(ctx, cfg, cmp.Or(*samples, 100))
			if err != nil {
				return fmt.Errorf("%s: %w", database, err)
			}
			delays = append(delays, more...)
		case "reads":
			shares, err := faults.MeasureReads(ctx, cfg, cmp.Or(*samples, 500))
			if err != nil {
				return fmt.Errorf("%s: %w", database, err)
			}
			fmt.Printf("%s\n\n", database)
			faults.PrintReads(os.Stdout, shares)
		case "":
			report, err := faults.Run(ctx, cfg)
			if err != nil {
				return fmt.Errorf("%s: %w", database, err)
			}
			report.Print(os.Stdout)
			fmt.Println()
			if len(report.Violations) > 0 {
				broken = errBroken
			}
		default:
			return fmt.Errorf("-measure %q: want delay or reads", *measure)
		}
	}
	if delays != nil {
		faults.PrintDelays(os.Stdout, delays)
	}
	return broken
}
