package browsertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestNodes is a visitor who stops the very node that answers, through the page,
// until none is left, and goes on shopping all the while.
func TestNodes(t *testing.T) {
	b := newBrowser(t, startChromium(t), "visitor", startDemo(t))
	b.open("/login")
	b.logIn("Ada")
	b.sees("Welcome, Ada.", "The nodes behind this shop", "node1", "node2", "node3", "answered")
	b.show("20-nodes")
	id := b.sessionID()

	for i, command := range []string{"Stop", "Kill"} {
		b.press("Add Storm lantern to the cart")
		node := b.answered()
		b.command(command, node, "Start")
		b.check()
		if now := b.answered(); now == node {
			t.Errorf("%s answers after %s", node, command)
		}
		b.wantsCart(i+1, id)
		b.show("21-nodes-" + strings.ToLower(command))
	}

	// The last one too. The browser's console notes the status of the page that
	// then comes.
	b.open("/cart")
	last := b.answered()
	b.command("Kill", last, "Start")
	b.forgetProblems()
	b.sees("All nodes are stopped", "killed")
	b.show("22-nodes-none")

	b.command("Start", last, "Stop")
	b.check()
	b.sees("Your cart", "Storm lantern", "Ada") // the page where it was stopped
	b.open("/")
	b.press("Add Brass compass to the cart")
	b.sees("Brass compass is in your cart.")
	b.wantsCart(3, id)
	for _, name := range []string{"node1", "node2", "node3"} {
		if name != last {
			b.command("Start", name, "Stop")
		}
	}
	b.wantsCart(3, id)
	b.dark(true)
	b.open("/")
	b.show("23-nodes-dark")
	b.dark(false)
	b.open("/office/login")
	b.show("24-nodes-office")
}

// answered returns which node made the page.
func (b *browser) answered() string {
	b.t.Helper()
	return b.text("[aria-labelledby=inspector] dl dd") // the first
}

func (b *browser) sessionID() string {
	b.t.Helper()
	return b.text(".inspector .wide dd")
}

// wantsCart fails the test unless the visitor is still Ada, has the same session,
// and so many things in the cart.
func (b *browser) wantsCart(items int, id string) {
	b.t.Helper()
	b.sees("Ada")
	if got := strings.Fields(b.text(".count")); got[0] != fmt.Sprint(items) {
		b.t.Errorf("%s has %s things in the cart, want %d", b.name, got[0], items)
	}
	if now := b.sessionID(); now != id {
		b.t.Errorf("%s: session ID changed from %s to %s", b.name, id, now)
	}
}

// command presses a button of the panel, and waits until the page, which loads
// itself anew meanwhile, offers the other one and will stay as it is.
func (b *browser) command(verb, node, then string) {
	b.t.Helper()
	run(b, chromedp.Click(chromedp.CSS(`[aria-label="`+verb+" "+node+`"]`), chromedp.NodeVisible))
	run(b, chromedp.WaitVisible(chromedp.CSS(`[aria-label="`+then+" "+node+`"]`)))
	run(b, chromedp.WaitNotPresent(chromedp.CSS(`meta[http-equiv=refresh]`)))
}

// forgetProblems passes over what the console has said so far.
func (b *browser) forgetProblems() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = nil
}
