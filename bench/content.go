package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Content is what every session holds, whoever keeps it: about 1 KB as JSON.
type Content struct {
	User  string
	Count int
	Cart  Cart
}

// A Cart is the larger part of a session.
type Cart struct{ Items []Item }

// An Item is a line of a cart.
type Item struct {
	SKU, Title, Variant string
	Quantity, Cents     int
}

func newContent() Content {
	c := Content{User: "customer-4711@shop.example"}
	for i := range 6 {
		c.Cart.Items = append(c.Cart.Items, Item{
			SKU:      fmt.Sprintf("SKU-%06d", 7919*(i+1)),
			Title:    fmt.Sprintf("Stoneware mug number %d, hand glazed, dishwasher safe", i),
			Variant:  "blue / 350 ml / gift box",
			Quantity: i + 1, Cents: 1995 + 100*i,
		})
	}
	return c
}

// A visit is a request's session, as the shop sees it.
type visit interface {
	start(Content) // fills a new session
	user() string  // read by every page
	count() int    // read by every page
	cart() Cart    // read by /cart
	increment()    // changes the session
	store() error  // where the handler must say so itself
}

// The paths that a shop answers.
const (
	pathStart = "/start" // begins a session
	pathRead  = "/read"  // reads two small attributes
	pathCart  = "/cart"  // reads the cart too
	pathSave  = "/save"  // increments the counter
)

// shop is the handler that all contestants run.
func shop(w http.ResponseWriter, path string, v visit) {
	items := 0
	switch path {
	case pathStart:
		v.start(newContent())
	case pathCart:
		items = len(v.cart().Items)
	case pathSave:
		v.increment()
	}
	if err := v.store(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, v.user(), v.count(), items)
}

var plain = []string{"text/plain; charset=utf-8"}

func answer(w http.ResponseWriter, user string, count, items int) {
	w.Header()["Content-Type"] = plain
	b := make([]byte, 0, 64)
	b = append(b, user...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(count), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(items), 10)
	w.Write(b)
}

// bare is the shop without sessions: what a page costs anyway.
func bare(w http.ResponseWriter, _ *http.Request) { answer(w, "customer-4711@shop.example", 1, 0) }

// bareWithCookies is the same for clients that send it what a session's client sends.
func bareWithCookies(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == pathStart {
		w.Header()["Set-Cookie"] = []string{
			"session=" + strings.Repeat("x", 43) + "; Path=/; HttpOnly; SameSite=Lax",
			"session-v-shop=1.01234567; Path=/; HttpOnly; SameSite=Lax",
		}
	}
	bare(w, r)
}
