// Package rules holds the tests that hold the repository to its house rules: what
// may import what, which modules a build needs, what must have a comment, and that
// documentation names only what exists. It has nothing but tests.
package rules
