// Package hello sets up the sessions of the examples.
package hello

import (
	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// Sessions returns the middleware of an application whose sessions are in memory.
func Sessions() (*middleware.Sessions, error) {
	ids, err := idmanager.New(membackend.New(), nil) // a real program also calls ids.Run
	if err != nil {
		return nil, err
	}
	app, err := sessionstore.New(ids, "example", nil)
	if err != nil {
		return nil, err
	}
	return middleware.New(app, &middleware.Config{InsecureCookie: true}) // no TLS here
}
