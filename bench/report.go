package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A section is one scenario's outcome.
type section struct {
	title   string
	text    string
	columns []string
	rows    [][]string
	targets []target
	charts  []drawing
}

// A target is what the scenario is to show.
type target struct {
	what    string
	value   float64
	atMost  bool // else at least
	bound   float64
	decimal int
}

func atLeast(what string, value, bound float64) target {
	return target{what: what, value: value, bound: bound, decimal: 1}
}

func atMost(what string, value, bound float64) target {
	return target{what: what, value: value, bound: bound, atMost: true, decimal: 1}
}

func (t target) digits(n int) target { t.decimal = n; return t }

func (t target) reached() bool {
	if t.atMost {
		return t.value <= t.bound
	}
	return t.value >= t.bound
}

func (t target) String() string {
	mark, word := "reached", "at least"
	if !t.reached() {
		mark = "MISSED"
	}
	if t.atMost {
		word = "at most"
	}
	return fmt.Sprintf("%s: %s (%s %s): %s", t.what, number(t.value, t.decimal), word, number(t.bound, t.decimal), mark)
}

// number writes a number with thousands apart.
func number(v float64, decimals int) string {
	s := fmt.Sprintf("%.*f", decimals, v)
	whole, rest, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return sign + whole
}

func duration(d time.Duration) string {
	switch {
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2f µs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	default:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	}
}

func (s *section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n", s.title)
	if s.text != "" {
		fmt.Fprintf(b, "%s\n\n", s.text)
	}
	if len(s.columns) > 0 {
		fmt.Fprintf(b, "| %s |\n|%s|\n", strings.Join(s.columns, " | "), "---"+strings.Repeat("|---:", len(s.columns)-1))
		for _, row := range s.rows {
			fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		}
		b.WriteByte('\n')
	}
	for _, t := range s.targets {
		fmt.Fprintf(b, "- %s\n", t)
	}
	if len(s.targets) > 0 {
		b.WriteByte('\n')
	}
}

// report writes what a mode has found: NAME.md, and NAME.svg if there is
// something to draw.
func (b *bench) report(name, title string, sections []*section) error {
	var text strings.Builder
	fmt.Fprintf(&text, "# %s\n\n%s\n\n", title, b.circumstances())
	var charts []drawing
	for _, s := range sections {
		s.markdown(&text)
		charts = append(charts, s.charts...)
	}
	fmt.Fprint(os.Stdout, "\n", text.String())
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	if len(charts) > 0 {
		if err := os.WriteFile(b.out+"/"+name+".svg", []byte(draw(title, b.subtitle(), charts)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(b.out+"/"+name+".md", []byte(strings.TrimRight(text.String(), "\n")+"\n"), 0o644)
}

func (b *bench) subtitle() string {
	return fmt.Sprintf("%s, %d cores, %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
}

// circumstances names versions, cores and date.
func (b *bench) circumstances() string {
	var s strings.Builder
	if b.note != "" {
		fmt.Fprintf(&s, "**%s**\n\n", b.note)
	}
	fmt.Fprintf(&s, "%s. %s/%s, %d cores (%s), %s. Client, server and databases share the machine.",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), runtime.Version())
	if len(b.ballast) > 0 {
		fmt.Fprintf(&s, " %d MiB of the heap stand for what else a server holds.", len(b.ballast)>>20)
	}
	for _, d := range b.databases {
		fmt.Fprintf(&s, " %s: %s.", d.kind, d.version)
	}
	if b.compared {
		fmt.Fprintf(&s, " %d interleaved rounds of %v for each figure; medians, and for ratios the median of the ratios within a round.", b.rounds, b.slice)
	}
	var modules []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "github.com/alexedwards/scs/v2", "github.com/alexedwards/scs/pgxstore", "github.com/alexedwards/scs/mysqlstore",
				"github.com/gorilla/sessions", "github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql":
				modules = append(modules, m.Path[len("github.com/"):]+" "+m.Version)
			}
		}
	}
	if len(modules) > 0 {
		fmt.Fprintf(&s, " %s.", strings.Join(modules, ", "))
	}
	return s.String()
}

// processor is what Linux says of the first one.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
