// Package hello sets up the sessions of the examples.
package hello

import (
	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// App returns the session manager of an application whose sessions are in memory.
func App() (*sessionstore.Manager, error) {
	ids, err := idmanager.New(membackend.New(), nil) // a real program also calls ids.Run
	if err != nil {
		return nil, err
	}
	return sessionstore.New(ids, "example", nil)
}

// Sessions returns the middleware of such an application.
func Sessions() (*middleware.Sessions, error) {
	app, err := App()
	if err != nil {
		return nil, err
	}
	return middleware.New(app, &middleware.Config{InsecureCookie: true}) // no TLS here
}
