// Package browsertest walks the demo with a real browser, headless Chromium, and
// stops nodes on the way.
//
//	cd internal/browsertest && go test ./...
//
// HOLDFAST_SCREENSHOTS names a directory to keep screenshots in. Where no Chromium
// is found the test is skipped, or fails if HOLDFAST_REQUIRE_BROWSER=1;
// HOLDFAST_BROWSER names the executable to use.
//
// Another walk starts the services of docker-compose.yml, which takes Docker,
// docker-compose and some minutes; it does so where HOLDFAST_TEST_COMPOSE=1.
//
// It is a module of its own, so that what drives the browser is no dependency of
// the library's users.
package browsertest
