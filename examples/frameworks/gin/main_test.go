package main

import (
	"testing"

	"github.com/holdfast-sessions/holdfast/examples/frameworks/walk"
)

func TestWalk(t *testing.T) { walk.Walk(t, handler) }
