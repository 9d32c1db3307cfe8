package main

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A histogram counts durations in buckets that are at most 3 % wide.
type histogram struct {
	buckets [64 * fine]uint32
	n       int
	longest time.Duration
}

const fine = 32 // buckets per power of two

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 1))
	exponent := bits.Len64(v) - 1
	fraction := v << (63 - exponent) << 1 >> (64 - 5)
	h.buckets[exponent*fine+int(fraction)]++
	h.n++
	h.longest = max(h.longest, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.n += other.n
	h.longest = max(h.longest, other.longest)
}

// quantile returns the upper end of the bucket in which the quantile lies.
func (h *histogram) quantile(q float64) time.Duration {
	left := int(q * float64(h.n))
	for i, n := range h.buckets {
		if left -= int(n); left < 0 {
			exponent, fraction := i/fine, i%fine
			return time.Duration(float64(uint64(1)<<exponent) * (1 + float64(fraction+1)/fine))
		}
	}
	return h.longest
}

// A sample is what one contestant did in one round.
type sample struct {
	ops     int
	elapsed time.Duration
	latency histogram
}

func (s *sample) perSecond() float64 { return float64(s.ops) / s.elapsed.Seconds() }

// drive lets every client request pages, one after the other, for a while.
func drive(clients []client, path string, d time.Duration) (*sample, error) {
	return driveFunc(len(clients), d, func(i int) error { return clients[i].do(path) })
}

// driveFunc lets n goroutines call f with their number for a while.
func driveFunc(n int, d time.Duration, f func(i int) error) (*sample, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards total and first
		total = new(sample)
		first error
		begin = time.Now()
	)
	for i := range n {
		wg.Go(func() {
			var h histogram
			var err error
			for last := time.Now(); last.Sub(begin) < d && err == nil; {
				if err = f(i); err == nil {
					now := time.Now()
					h.add(now.Sub(last))
					last = now
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.latency.merge(&h)
			first = cmp.Or(first, err)
		})
	}
	wg.Wait()
	total.ops, total.elapsed = total.latency.n, time.Since(begin)
	return total, first
}

// A contest is one line of a comparison.
type contest struct {
	name string
	run  func(d time.Duration) (*sample, error)
}

// A result is what a contest did in all rounds.
type result struct {
	name    string
	samples []*sample
}

func (r *result) perSecond() float64 {
	return median(r.samples, (*sample).perSecond)
}

func (r *result) quantile(q float64) time.Duration {
	return time.Duration(median(r.samples, func(s *sample) float64 { return float64(s.latency.quantile(q)) }))
}

func median(samples []*sample, of func(*sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	return medianOf(values)
}

func medianOf(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// compare runs the contests in turn, round after round, each round in another order, so
// that neither what else the machine does nor what a contest leaves behind hits always
// the same one. A round before the first warms up.
func (b *bench) compare(contests ...contest) (results, error) {
	b.compared = true
	rs := make(results, len(contests))
	for i, c := range contests {
		rs[i] = &result{name: c.name}
		if _, err := c.run(b.slice / 4); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	order := rand.New(rand.NewPCG(1, uint64(len(contests)))) // the same in each run
	for range b.rounds {
		for _, i := range order.Perm(len(contests)) {
			runtime.GC() // nobody pays for the garbage of another
			s, err := contests[i].run(b.slice)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contests[i].name, err)
			}
			rs[i].samples = append(rs[i].samples, s)
		}
		fmt.Fprint(os.Stderr, ".")
	}
	return rs, nil
}

type results []*result

// samples returns a contest's, one for each round, none if it did not take part.
func (rs results) samples(name string) []*sample {
	for _, r := range rs {
		if r.name == name {
			return r.samples
		}
	}
	return nil
}

// of returns the throughput of a contest, 0 if it did not take part.
func (rs results) of(name string) float64 {
	return median(rs.samples(name), (*sample).perSecond)
}

// ratio compares two throughputs: the median of what it is in each round. The machine
// may be faster in one round than in the next, but within one it is mostly the same.
func (rs results) ratio(a, b string) float64 {
	of, to := rs.samples(a), rs.samples(b)
	var ratios []float64
	for i := range min(len(of), len(to)) {
		ratios = append(ratios, of[i].perSecond()/to[i].perSecond())
	}
	return medianOf(ratios)
}
