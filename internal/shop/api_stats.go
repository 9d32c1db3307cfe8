package shop

import (
	"context"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// statsAnswer is what GET /api/stats says. It is answered without a session, so
// that measuring changes nothing.
type statsAnswer struct {
	Node       string `json:"node"`
	Statements int64  `json:"statements"` // run by this process since its start
	sessionstore.Stats
	Applications map[string]sessionstore.Stats `json:"applications"`
}

func (a *application) stats(context.Context) any {
	return statsAnswer{
		Node:       a.sessions.Node(),
		Statements: a.site.cfg.Statements(),
		Stats:      a.sessions.Stats(), // this application's
		Applications: map[string]sessionstore.Stats{
			a.site.shop.sessions.App():   a.site.shop.sessions.Stats(),
			a.site.office.sessions.App(): a.site.office.sessions.Stats(),
		},
	}
}
