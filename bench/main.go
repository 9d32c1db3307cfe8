// Command bench compares the library with others and shows what it costs at
// scale. README.md tells how to run it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// ballastBytes is memory that stands for what else a server holds: the size of a
// filled cache. The few sessions here would otherwise leave so small a heap that
// Go collects garbage a hundred times a second, whoever makes it.
const ballastBytes = 64 << 20

// A bench is one run of the command.
type bench struct {
	rounds    int
	slice     time.Duration // of one contestant in one round
	sweepTime time.Duration
	visit     time.Duration
	pace      time.Duration
	out       string        // directory of the results
	note      string        // what the reader of the results should know
	records   int           // how many sessions, where a mode is about many
	duration  time.Duration // of the soak
	only      string        // the only database, "" for both
	parts     string        // the parts of the comparison, "" for all
	profile   string        // file to write a CPU profile to

	compared  bool // there were interleaved rounds
	databases []*database
	ballast   []byte
}

// A mode is what a run does: it leaves a result under its own name.
type mode struct {
	about   string
	records int // default of -records
	run     func(*bench, context.Context) error
}

var modes = map[string]mode{
	"compare": {"side by side with other libraries; statements counted by the databases (about 8 minutes)", 0, (*bench).compareAll},
	"inplace": {"HOT updates and index growth over half a million saves and touches, on PostgreSQL (1 to 2 minutes)", 500_000, (*bench).inPlace},
	"sweep":   {"a million expired sessions swept beside live traffic (about 4 minutes)", 1_000_000, (*bench).sweeps},
	"rows":    {"cost of loads and saves beside ten thousand and ten million sessions (about 15 minutes, 10 GB of disk)", 10_000_000, (*bench).manyRows},
	"memory":  {"memory of cached sessions, and the cache's bound under a scan (half a minute, no database)", 1_000_000, (*bench).memory},
	"soak":    {"three nodes, mixed traffic, ten minutes (and two to begin with)", 200_000, (*bench).soak},
}

func main() {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.IntVar(&b.rounds, "rounds", 15, "rounds of each comparison")
	flags.DurationVar(&b.slice, "slice", 400*time.Millisecond, "how long each contestant runs in a round")
	flags.DurationVar(&b.sweepTime, "sweeptime", 0, "how long a sweeping transaction is to take (default that of idmanager.Config)")
	flags.DurationVar(&b.visit, "visit", 10*time.Minute, "how long the sessions that are swept were used, on average: if very long, they end in no order")
	flags.DurationVar(&b.pace, "pace", 20*time.Millisecond, "how often each of the clients saves beside the sweep")
	flags.StringVar(&b.out, "out", "results", "directory to write the results to")
	flags.StringVar(&b.note, "note", "", "a remark to put into the results")
	flags.IntVar(&b.records, "records", 0, "how many sessions, saves or expired sessions, where a mode is about many")
	flags.DurationVar(&b.duration, "for", 10*time.Minute, "how long the soak runs")
	flags.StringVar(&b.only, "only", "", "only this database: PostgreSQL or MySQL")
	flags.StringVar(&b.parts, "parts", "", "only these parts of the comparison, with commas: "+strings.Join(partNames(), ", "))
	flags.StringVar(&b.profile, "cpuprofile", "", "file to write a CPU profile to")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: go run . [mode] [flags]\n\nmodes:\n")
		for _, name := range slices.Sorted(maps.Keys(modes)) {
			fmt.Fprintf(flags.Output(), "  %-8s %s\n", name, modes[name].about)
		}
		fmt.Fprint(flags.Output(), "\nflags:\n")
		flags.PrintDefaults()
	}
	args, name := os.Args[1:], "compare"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	m, ok := modes[name]
	if flags.Parse(args); !ok || flags.NArg() > 0 {
		flags.Usage()
		os.Exit(2)
	}
	if err := b.validate(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(2)
	}
	b.records = cmp.Or(b.records, m.records)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := b.profiled(func() error { return m.run(b, ctx) })
	b.close()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nbench %s: %v\n", name, err)
		os.Exit(1)
	}
}

// validate returns an error that names a flag of which nothing can come.
func (b *bench) validate() error {
	switch {
	case b.rounds < 1:
		return fmt.Errorf("-rounds %d: want at least 1", b.rounds)
	case b.slice <= 0:
		return fmt.Errorf("-slice %v: want a duration such as 400ms", b.slice)
	case b.duration <= 0:
		return fmt.Errorf("-for %v: want a duration such as 10m", b.duration)
	case b.pace <= 0:
		return fmt.Errorf("-pace %v: want a duration such as 20ms", b.pace)
	case b.records < 0:
		return fmt.Errorf("-records %d: want at least 1, or 0 for the mode's own number", b.records)
	case b.only != "" && b.only != onPostgres && b.only != onMySQL:
		return fmt.Errorf("-only %q: want %s or %s", b.only, onPostgres, onMySQL)
	}
	return nil
}

// open opens databases, which close closes.
func (b *bench) open(ctx context.Context, kinds ...string) error {
	for _, kind := range kinds {
		if b.only != "" && b.only != kind {
			continue
		}
		d, err := openDatabase(ctx, kind)
		if err != nil {
			return err
		}
		b.databases = append(b.databases, d)
	}
	if len(b.databases) == 0 {
		return errors.New("no database is left to run on")
	}
	return nil
}

// named returns the name of a mode's results, which tells if only one database took part.
func (b *bench) named(mode string) string {
	if b.only == "" {
		return mode
	}
	return mode + "-" + strings.ToLower(b.only)
}

// scoped runs a scenario and closes the nodes and pools that it has opened.
func (b *bench) scoped(ctx context.Context, scenario func(context.Context) ([]*section, error)) ([]*section, error) {
	for _, d := range b.databases {
		defer d.closeBeyond(len(d.closers))
	}
	return scenario(ctx)
}

// on returns the database of a kind, nil if it takes no part.
func (b *bench) on(kind string) *database {
	for _, d := range b.databases {
		if d.kind == kind {
			return d
		}
	}
	return nil
}

func (b *bench) close() {
	for _, d := range slices.Backward(b.databases) {
		d.close()
	}
}

// step says on the terminal what is going on.
func step(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\n%s  "+format+" ", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// profiled runs f, and writes a CPU profile of it if one was asked for.
func (b *bench) profiled(f func() error) error {
	if b.profile == "" {
		return f()
	}
	file, err := os.Create(b.profile)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// A part is a scenario of the comparison.
type part struct {
	name string
	run  func(*bench, context.Context) ([]*section, error)
}

var parts = []part{
	{"reads", (*bench).cachedReads}, {"saves", (*bench).saves}, {"http", (*bench).overHTTP},
	{"strict", (*bench).strictReads}, {"hot", (*bench).hotSession}, {"statements", (*bench).countStatements},
}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// compareAll runs the scenarios that compare.
func (b *bench) compareAll(ctx context.Context) error {
	chosen := partNames()
	if b.parts != "" {
		chosen = strings.Split(b.parts, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("no part is called %q", name)
		}
	}
	if err := b.open(ctx, onPostgres, onMySQL); err != nil {
		return err
	}
	b.ballast = make([]byte, ballastBytes)
	var sections []*section
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		more, err := b.scoped(ctx, func(ctx context.Context) ([]*section, error) { return p.run(b, ctx) })
		if err != nil {
			return err
		}
		sections = append(sections, more...)
	}
	return b.report("compare", "Side by side", sections)
}
