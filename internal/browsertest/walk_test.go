package browsertest

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestWalk is what a visitor with two browsers does.
func TestWalk(t *testing.T) {
	chromium := startChromium(t)
	base := startDemo(t, "--nodes", "1") // what the cache answers then does not depend on which node is asked
	first := newBrowser(t, chromium, "first browser", base)
	second := newBrowser(t, chromium, "second browser", base)

	// The shop, as nobody in particular: no session, no cookie (P9).
	first.open("/")
	first.sees("Gear that holds fast", "Storm lantern", "No session yet", "node1")
	first.show("01-shop")

	first.press("Add Storm lantern to the cart")
	first.sees("Storm lantern is in your cart.")
	first.press("Add Storm lantern to the cart")
	first.press("Add Brass compass to the cart")
	first.open("/cart")
	first.sees("Your cart", "€ 156.00", "From the cache")
	first.fill("q-compass", "2")
	first.press("Change the quantity of Brass compass")
	first.sees("Quantity changed.", "€ 214.00")
	first.show("02-cart")
	id := first.sessionID()

	// Logging in keeps session and cart.
	first.open("/login")
	first.show("03-login")
	first.logIn("Ada")
	first.sees("Welcome, Ada.", "Ada")
	if now := first.sessionID(); now != id {
		t.Errorf("session ID changed from %s to %s by logging in", id, now)
	}
	if got := strings.Fields(first.text(".count")); !slices.Equal(got, []string{"4", "items"}) {
		t.Errorf("cart holds %q after logging in, want 4 items", got)
	}

	second.open("/login")
	second.logIn("Ada")
	second.open("/cart")
	second.sees("There is nothing in it yet.")
	second.screenshot("04-empty-cart-desktop")

	first.press("Devices")
	first.sees("This device", "Another device", "Asked the database")
	if n := first.count(".device"); n != 2 {
		t.Errorf("%d devices, want 2", n)
	}
	first.show("05-devices")

	first.press("Log out everywhere else")
	first.sees("One other device is logged out.")
	if n := first.count(".device"); n != 1 {
		t.Errorf("%d devices, want 1", n)
	}
	second.open("/devices")
	second.sees("Log in", "Any name will do")
	if url := second.location(); url != base+"/login" {
		t.Errorf("second browser is at %s after it was logged out, want the login page", url)
	}

	// One device at a time.
	second.logIn("Ada")
	first.open("/devices")
	first.press("Log out device " + first.text(".device:not(.current) .id"))
	first.sees("That device is logged out.")
	second.open("/")
	second.sees("Log in")

	// The back office: another application, the same session.
	first.open("/")
	first.press("Back office")
	first.sees("Log in to the back office")
	first.show("06-office-login")
	first.logIn("Grace")
	first.sees("Orders to pack", "Welcome, Grace.")
	if now := first.sessionID(); now != id {
		t.Errorf("session ID in the office is %s, in the shop %s", now, id)
	}
	first.press("Pack order 1043")
	first.fill("note", "Lantern wrapped twice.")
	first.press("Note it")
	first.sees("Noted.", "You have packed 1 order in this session.", "Lantern wrapped twice.")
	first.show("07-office")
	first.press("To the shop")
	first.sees("Ada") // its own login

	first.open("/office/")
	first.press("Log out of both")
	first.sees("your shop session has ended with it")
	first.show("08-office-logged-out")
	first.open("/cart")
	first.sees("There is nothing in it yet.", "Log in")

	// In the dark, and with names that try to break the page.
	first.dark(true)
	first.open("/login")
	first.logIn(`<b onclick="x">O’Brien-Featherstonehaugh von Hohenlohe</b>`)
	first.press("Add Lifebuoy to the cart")
	first.show("09-shop-dark")
	first.open("/devices")
	first.show("10-devices-dark")
	first.open("/cart")
	first.show("11-cart-dark")
	first.open("/office/login")
	first.logIn("Grace")
	first.show("12-office-dark")
	first.dark(false)
	if n := first.count("b"); n != 0 {
		t.Error("a name became markup")
	}

	first.notFound("/no/such/page")
	first.sees("404", "There is nothing at this address.")
	first.show("13-not-found")
}

func (b *browser) location() string {
	b.t.Helper()
	return run(b, chromedp.Location())
}

// notFound opens a page that is not there. The browser's console says so too.
func (b *browser) notFound(path string) {
	b.t.Helper()
	run(b, chromedp.Navigate(b.base+path))
	b.forgetProblems()
}
