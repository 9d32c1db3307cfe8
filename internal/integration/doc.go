// Package integration tests the whole stack, from HTTP to each real database:
// the promises of ARCHITECTURE.md that one process can keep. It contains tests only.
package integration
