package shop_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// page gets a page and fails the test unless it has the status and the texts.
func (c *client) page(path string, status int, texts ...string) string {
	c.t.Helper()
	return c.do("GET", path, "").isPage(status, texts...)
}

func (a answer) isPage(status int, texts ...string) string {
	a.t.Helper()
	body := string(a.body)
	if a.StatusCode != status || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") || !strings.HasSuffix(body, "</html>\n") {
		a.t.Fatalf("%s %s: status %d, want %d: %s", a.Request.Method, a.Request.URL, a.StatusCode, status, body)
	}
	for _, text := range texts {
		if !strings.Contains(body, text) {
			a.t.Errorf("%s %s: no %q in %s", a.Request.Method, a.Request.URL, text, body)
		}
	}
	if got := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		a.t.Errorf("content security policy %q", got)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		a.t.Errorf("cache control %q", got)
	}
	return body
}

// redirects fails the test unless a POST was answered with a redirect there.
func (a answer) redirects(path string) {
	a.t.Helper()
	if a.StatusCode != 303 || a.Header.Get("Location") != path {
		a.t.Fatalf("POST %s: status %d to %q, want 303 to %q: %s", a.Request.URL, a.StatusCode, a.Header.Get("Location"), path, a.body)
	}
}

func TestShopping(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.page("/", 200, "Pocket anchor", "No session yet", "€ 34.00")
		c.post("/cart/anchor/add", "").redirects("/")
		c.page("/", 200, "Pocket anchor is in your cart.", "From the cache", c.state("").ID)
		if body := c.page("/", 200); strings.Contains(body, "is in your cart.") {
			t.Error("a message is shown twice")
		}
		c.post("/cart/anchor", "quantity=3").redirects("/cart")
		c.page("/cart", 200, "Quantity changed.", "€ 102.00")
		// The page shows the version that the same request has stored.
		c.post("/cart/mug/add", "").redirects("/")
		body := c.page("/cart", 200)
		if want := fmt.Sprintf("<dt>Version</dt><dd>%d</dd>", *c.state("").Version); !strings.Contains(body, want) {
			t.Errorf("no %s on the page", want)
		}
		c.post("/cart/mug", "quantity=0").redirects("/cart")
		c.page("/cart", 200, "Enamel mug is out of your cart.")
		if s := c.state(""); string(s.Attributes["cart"]) != `{"anchor":3}` {
			t.Errorf("cart: %s", s.Attributes["cart"])
		}
		for _, quantity := range []string{"", "x", "-1", "100", "1e1", "99999999999999999999"} {
			c.post("/cart/anchor", "quantity="+quantity).isPage(400, "0 to 99")
		}
		c.post("/cart/anchor", "quantity=1&pad="+strings.Repeat("x", 20000)).isPage(400)
		c.post("/cart/whale/add", "").isPage(404, "We do not sell that.")
		c.post("/cart/empty", "").redirects("/cart")
		c.page("/cart", 200, "nothing in it yet")
	})
}

// P13: a cart that is none costs the cart, not the page.
func TestP13StrangeCart(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		for _, value := range []string{`"x"`, `[1]`, `null`, `{"whale":1}`, `{"anchor":-4}`, `{"anchor":"x"}`} {
			c.do("PUT", "/api/attributes/cart", value).wants(200)
			c.page("/cart", 200, "nothing in it yet")
			c.do("PUT", "/api/attributes/flash", value).wants(200)
			c.page("/", 200)
		}
		c.do("PUT", "/api/attributes/cart", `{"anchor":100000}`).wants(200)
		c.page("/cart", 200, "€ 3366.00")
		c.post("/cart/anchor/add", "").redirects("/")
	})
}

func TestAccountPages(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c, other := site.client(), site.client()
		c.do("GET", "/devices", "").redirects("/login")
		for _, name := range []string{"", "  ", strings.Repeat("x", 256), "a\x00b", "\xff"} {
			c.post("/login", "name="+url.QueryEscape(name)).isPage(422, `role="alert"`)
		}
		evil := `<script>alert("1")</script>`
		for _, c := range []*client{c, other} {
			c.post("/login", "name="+url.QueryEscape(evil)).redirects("/")
		}
		body := c.page("/devices", 200, "This device", "Another device", "Asked the database", "&lt;script&gt;")
		if strings.Contains(body, evil) {
			t.Error("a name became markup")
		}
		id := other.state("").ID
		c.post("/devices/"+id+"/end", "").redirects("/devices")
		c.post("/devices/"+id+"/end", "").isPage(404)
		other.do("GET", "/devices", "").redirects("/login")
		other.post("/login", "name="+url.QueryEscape(evil)).redirects("/")
		c.post("/logout-everywhere", "").redirects("/devices")
		c.page("/devices", 200, "One other device is logged out.")
		other.post("/logout-everywhere", "").redirects("/login")
		c.post("/devices/"+c.state("").ID+"/end", "").redirects("/")
		c.page("/", 200, "You are logged out.")
		if *c.state("").Principal != "" {
			t.Error("still logged in")
		}
	})
}

func TestOfficePages(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.post("/cart/anchor/add", "").redirects("/")
		c.do("GET", "/office/", "").redirects("/office/login")
		c.post("/office/orders/1042", "packed=yes").redirects("/office/login")
		c.page("/office/login", 200, "Log in to the back office")
		c.post("/office/login", "name=Grace").redirects("/office/")
		c.page("/office/", 200, "Welcome, Grace.", "You have not packed any")
		c.post("/office/orders/1042", "packed=yes").redirects("/office/")
		c.post("/office/orders/1042", "packed=no").redirects("/office/")
		c.post("/office/orders/1043", "packed=yes").redirects("/office/")
		c.post("/office/orders/7", "packed=yes").isPage(404)
		c.post("/office/notes", "note="+url.QueryEscape("<i>fragile</i>")).redirects("/office/")
		c.post("/office/notes", "note=").isPage(422)
		c.post("/office/notes", "note="+strings.Repeat("x", 501)).isPage(422)
		c.page("/office/", 200, "Noted.", "You have packed 2 orders", "&lt;i&gt;fragile", `aria-label="Unpack order 1043"`, `aria-label="Pack order 1042"`)
		c.post("/office/notes/clear", "").redirects("/office/")
		c.page("/office/", 200, "None yet.")
		c.page("/cart", 200, "Pocket anchor") // the shop's part goes on
		c.post("/office/logout", "").redirects("/office/login")
		c.page("/office/login", 200, "your shop session has ended with it")
		c.page("/cart", 200, "nothing in it yet")
	})
}

func TestOtherPaths(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.page("/nothing", 404, "There is nothing at this address.")
		c.page("/office/nothing", 404, "back office")
		for path, status := range map[string]int{
			"/static/style.css": 200, "/static/favicon.svg": 200, "/static/art/mug.svg": 200, "/favicon.ico": 302,
			"/static/": 404, "/static/art/": 404, "/static/nothing": 404, "/static/../pages/login.html": 404,
		} {
			if a := c.do("GET", path, ""); a.StatusCode != status && a.StatusCode != 301 && a.StatusCode != 307 {
				t.Errorf("%s: status %d, want %d", path, a.StatusCode, status)
			}
		}
	})
}
