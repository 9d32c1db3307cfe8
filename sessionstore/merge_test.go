package sessionstore_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A save that has travelled with others sees what it has stored itself, and not what
// came after it. The next save of its request keeps both.
func TestSavesAfterOneThatTravelledWithOthers_P2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "old") })
		begin := func() *sessionstore.Session {
			s, err := n.Begin(t.Context(), c.claim())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		save := func(s *sessionstore.Session) {
			if err := s.Save(context.Background()); err != nil {
				t.Error(err)
			}
		}
		first, second, third := begin(), begin(), begin()
		var wg sync.WaitGroup
		goOn, once := make(chan struct{}), sync.Once{}
		n.backend.set(func(method string) error {
			if method == "Update" {
				once.Do(func() { <-goOn })
			}
			return nil
		})
		count.Update(first, increment)
		wg.Go(func() { save(first) })
		synctest.Wait()
		count.Update(second, increment)
		wg.Go(func() { save(second) })
		synctest.Wait()
		count.Update(third, increment)
		name.Delete(third)
		tags.Set(third, map[string]int{"a": 1})
		wg.Go(func() { save(third) }) // with the second
		synctest.Wait()
		close(goOn)
		wg.Wait()
		want(t, "merged saves", n.Stats().Merged, 1)

		got, _ := count.Get(second)
		want(t, "count after the second", got, 2)
		got, _ = count.Get(third)
		want(t, "count after the third", got, 3)
		count.Update(second, increment)
		got, _ = count.Get(second)
		want(t, "count as the second sees it", got, 3)
		save(second)
		got, _ = count.Get(second)
		want(t, "count after the second has saved again", got, 4)
		for _, s := range []*sessionstore.Session{first, second, third} {
			n.Release(s)
		}
		c.version = 0 // ask the database
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			got, _ = count.Get(s)
			want(t, "count", got, 4)
			_, present := name.Get(s)
			want(t, "the name that was deleted is there", present, false)
			_, present = tags.Get(s)
			want(t, "the tags that were set are there", present, true)
		})
	})
}

// Requests of one session on two nodes change what they change in any order, save in
// between or not, and lose nothing; each client reads what it was told is stored.
func TestRandomRequests_P2_P4(t *testing.T) {
	for round := range 200 {
		synctest.Test(t, func(t *testing.T) {
			memory, cfg := membackend.New(), new(sessionstore.Config)
			if round%3 == 0 {
				cfg.CacheBytes = -1
			}
			pause := func() { time.Sleep(rand.N(500 * time.Microsecond)) }
			var nodes []*node
			for _, name := range []string{"a", "b"} {
				n := newNode(t, memory, name, cfg).run(t)
				n.backend.set(func(string) error { pause(); return nil })
				nodes = append(nodes, n)
			}
			opener := &client{}
			opener.do(t, nodes[0].Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
			var own [8]sessionstore.Attr[int]
			var stored [len(own)]int // of own, as its client was told
			var all [len(own)]int    // of count, by client
			var wg sync.WaitGroup
			for i := range own {
				own[i] = sessionstore.NewAttr[int](string(rune('A' + i)))
				c := *opener
				wg.Go(func() {
					for range 15 {
						c.do(t, nodes[rand.N(2)].Manager, func(s *sessionstore.Session) {
							got, _ := own[i].Get(s)
							want(t, "the client's own count", got, stored[i])
							for range 1 + rand.N(3) {
								switch rand.N(4) {
								case 0:
									count.Update(s, increment)
									all[i]++
								case 1:
									own[i].Update(s, increment)
									stored[i]++
								case 2:
									if err := s.Save(context.Background()); err != nil {
										t.Error(err)
									}
								case 3:
									pause()
								}
							}
						})
					}
				})
			}
			wg.Wait()
			sum := 0
			opener.version = 0
			opener.do(t, nodes[0].Manager, func(s *sessionstore.Session) {
				for i, n := range all {
					sum += n
					got, _ := own[i].Get(s)
					want(t, "a client's own count in the end", got, stored[i])
				}
				got, _ := count.Get(s)
				want(t, "count", got, sum)
			})
		})
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}
