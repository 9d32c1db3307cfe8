package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// stepTimeout bounds each step of a walk; a page takes some milliseconds.
const stepTimeout = 20 * time.Second

// findBrowser returns the path of a Chromium, or skips the test.
func findBrowser(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}
	if name := os.Getenv("HOLDFAST_BROWSER"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const hint = "no Chromium found: install it (apt-get install chromium) or name it in HOLDFAST_BROWSER, then run: cd internal/browsertest && go test ./..."
	if os.Getenv("HOLDFAST_REQUIRE_BROWSER") == "1" {
		t.Fatal(hint)
	}
	t.Skip(hint)
	return ""
}

// startChromium returns a context in which chromedp opens windows.
func startChromium(t *testing.T) context.Context {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(findBrowser(t)),
		chromedp.NoSandbox, // it needs privileges that containers do not have
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// A browser is one visitor's: it shares no cookies with others.
type browser struct {
	t    *testing.T
	name string
	base string // of the demo
	ctx  context.Context

	mu       sync.Mutex // guards problems
	problems []string
}

// newBrowser opens a window with a profile of its own, in which everything that
// comes from elsewhere than the demo, and every error in the console, is a problem.
func newBrowser(t *testing.T, chromium context.Context, name, base string) *browser {
	t.Helper()
	b := &browser{t: t, name: name, base: base}
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.hear))
	t.Cleanup(cancel)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // opens the window, for as long as ctx lives
		t.Fatalf("%s: %v", name, err)
	}
	b.desktop()
	return b
}

func (b *browser) hear(event any) {
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		url := event.Request.URL
		if !strings.HasPrefix(url, b.base+"/") && !strings.HasPrefix(url, "data:") && url != "about:blank" {
			b.problem("asked another host: %s", url)
		}
	case *log.EventEntryAdded:
		if event.Entry.Level == log.EntryLevelError {
			b.problem("console: %s %s", event.Entry.Text, event.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		b.problem("exception: %s", event.ExceptionDetails.Text)
	}
}

func (b *browser) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// run runs one action and returns what it found.
func run[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("%s: %v\non the page: %s", b.name, err, b.look())
	}
	return v
}

// navigate runs an action that leads to another page, and checks that page.
func (b *browser) navigate(action chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	response, err := chromedp.RunResponse(ctx, action)
	if err != nil {
		b.t.Fatalf("%s: %v\non the page: %s", b.name, err, b.look())
	}
	if response.Status != 200 {
		b.t.Fatalf("%s: %s answered %d: %s", b.name, response.URL, response.Status, b.look())
	}
	b.check()
}

// look returns the text of the page, for failures.
func (b *browser) look() string {
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.navigate(chromedp.Navigate(b.base + path))
}

// press clicks the link or button with this accessible name.
func (b *browser) press(name string) {
	b.t.Helper()
	quoted := `"` + name + `"`
	b.navigate(chromedp.Click(
		`//*[self::a or self::button][@aria-label=`+quoted+` or not(@aria-label) and normalize-space()=`+quoted+`]`,
		chromedp.NodeVisible))
}

// fill types into the field with this ID.
func (b *browser) fill(id, text string) {
	b.t.Helper()
	run(b, chromedp.Clear(chromedp.ID(id)))
	run(b, chromedp.SendKeys(chromedp.ID(id), text))
}

// logIn fills in the login form that is open.
func (b *browser) logIn(user string) {
	b.t.Helper()
	b.fill("name", user)
	b.navigate(chromedp.Submit(chromedp.ID("name")))
}

// sees fails the test unless the page shows each text.
func (b *browser) sees(texts ...string) {
	b.t.Helper()
	page := b.look()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.t.Fatalf("%s does not see %q on the page:\n%s", b.name, text, page)
		}
	}
}

// count returns how many elements a selector finds.
func (b *browser) count(selector string) int {
	b.t.Helper()
	return run(b, chromedp.Evaluate[int](fmt.Sprintf(`document.querySelectorAll(%q).length`, selector)))
}

// text returns the text of one element.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return run(b, chromedp.Text(chromedp.CSS(selector)))
}

// check looks for what every page must have and for problems so far.
func (b *browser) check() {
	b.t.Helper()
	faults := run(b, chromedp.Evaluate[[]string](pageFaults))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range append(faults, b.problems...) {
		b.t.Errorf("%s: %s", b.name, fault)
	}
	b.problems = nil
}

// pageFaults is a script that lists what is wrong with a page's form.
const pageFaults = `(() => {
	const faults = [], where = location.pathname + ': ';
	const all = s => [...document.querySelectorAll(s)];
	if (document.documentElement.lang !== 'en') faults.push(where + 'no language');
	if (!document.title) faults.push(where + 'no title');
	if (all('h1').length !== 1) faults.push(where + all('h1').length + ' first headings');
	if (all('main').length !== 1) faults.push(where + 'no main part');
	if (!document.querySelector('meta[name=viewport]')) faults.push(where + 'no viewport');
	for (const f of all('input')) if (!f.labels.length) faults.push(where + 'field without label: ' + f.name);
	for (const i of all('img')) if (!i.hasAttribute('alt')) faults.push(where + 'picture without alt: ' + i.src);
	for (const i of all('img')) if (i.complete && !i.naturalWidth) faults.push(where + 'picture does not load: ' + i.src);
	for (const e of all('a, button')) if (!e.textContent.trim() && !e.ariaLabel) faults.push(where + 'control without name');
	const ids = all('[id]').map(e => e.id);
	if (new Set(ids).size !== ids.length) faults.push(where + 'an ID is used twice');
	if (document.documentElement.scrollWidth > innerWidth) faults.push(where + 'wider than the window');
	return faults;
})()`

func (b *browser) desktop() {
	run(b, chromedp.EmulateViewport(1280, 800))
}

func (b *browser) phone() {
	run(b, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch))
}

func (b *browser) dark(on bool) {
	scheme := "light"
	if on {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// show checks the page at both sizes and keeps its screenshots, if asked to.
func (b *browser) show(name string) {
	b.t.Helper()
	b.screenshot(name + "-desktop")
	b.phone()
	b.check()
	b.screenshot(name + "-phone")
	b.desktop()
}

func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("HOLDFAST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png := run(b, chromedp.FullScreenshot(100))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
