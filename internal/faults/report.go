package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Report is what a run found.
type Report struct {
	Database   string
	Nodes      int
	Freshness  string
	Seed       uint64
	Took       time.Duration
	Phases     []*Phase
	Violations []string // promises broken; nothing else counts as much

	Kinds    []Kind
	Sessions int // whose histories were checked
	Ops      int // in those histories
	Ended    int // sessions whose end was acknowledged
	Expired  int // sessions made to expire
	Logins   int // with another request of the browser under way
	Exposed  int // of these, such that the other response carries the token from before
	Undone   int // of these, such that it arrived after the login's
	// Delays are the times from an end until another node refused the session,
	// through all faults, sorted.
	Delays []time.Duration
}

// A Kind is what browsers of one kind did, through all faults.
type Kind struct {
	Name     string
	Sessions int
	Requests int   // answered as they should
	Errors   int   // writes whose answer was an error
	Writes   int   // acknowledged
	Lost     int64 // of these
}

// add counts a history.
func (k *Kind) add(h *history) {
	k.Sessions++
	k.Lost += h.lost()
	for _, o := range h.ops {
		switch {
		case o.outcome != done:
			k.Errors++
		case o.action != read:
			k.Writes++
			fallthrough
		default:
			k.Requests++
		}
	}
}

// Requests is how many requests went through the balancer.
func (r *Report) Requests() (n int) {
	for _, p := range r.Phases {
		n += p.Requests
	}
	return n
}

// Print writes the report as a table in Markdown.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d nodes, %s freshness, seed %d, %v\n\n", r.Database, r.Nodes, r.Freshness, r.Seed, r.Took.Round(time.Second))
	fmt.Fprintln(w, "| Fault | requests | errors seen by clients | acknowledged writes | lost | longest gap | back after | reads from a copy |")
	fmt.Fprintln(w, "|---|---:|---|---:|---:|---:|---:|---:|")
	for _, p := range r.Phases {
		share := "-"
		if p.Reads > 0 {
			share = fmt.Sprintf("%d %%", 100*p.Cached/p.Reads)
		}
		fmt.Fprintf(w, "| %s | %d | %s | %d | %d | %.2f s | %.1f s | %s |\n", p.Fault, p.Requests, p.errorText(), p.Writes, p.Lost,
			p.Gap.Seconds(), p.Recovered.Seconds(), share)
	}
	fmt.Fprint(w, "\n| Browsers | sessions | requests | writes answered with an error | acknowledged writes | lost |\n|---|---:|---:|---:|---:|---:|\n")
	for _, k := range r.Kinds {
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d |\n", k.Name, k.Sessions, k.Requests, k.Errors, k.Writes, k.Lost)
	}
	fmt.Fprintf(w, "\nChecked: %d sessions with %d requests; %d ended and tried again on every node, %d made to expire.\n",
		r.Sessions, r.Ops, r.Ended, r.Expired)
	if len(r.Delays) > 0 {
		fmt.Fprintf(w, "Refused by other nodes after: median %v, 99th percentile %v, longest %v.\n",
			percentile(r.Delays, 50), percentile(r.Delays, 99), percentile(r.Delays, 100))
	}
	fmt.Fprintf(w, "Logins beside another request of the browser: %d; its response carried the token from before: %d; and arrived last: %d.\n",
		r.Logins, r.Exposed, r.Undone)
	for _, p := range r.Phases {
		if p.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", p.Fault, p.Problem)
		}
	}
	fmt.Fprintf(w, "Promises broken: %d\n", len(r.Violations))
	for _, v := range r.Violations[:min(len(r.Violations), 20)] {
		fmt.Fprintln(w, "  "+strings.ReplaceAll(v, "\n", "\n  "))
	}
}

// percentile returns the smallest of the sorted times that p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := max(0, (len(sorted)*p+99)/100-1)
	return sorted[i].Round(time.Millisecond / 10)
}

func sorted(times []time.Duration) []time.Duration {
	times = slices.Clone(times)
	slices.Sort(times)
	return times
}
