// Command echo serves sessions around an echo instance.
package main

import (
	"log"
	"net/http"
	"strconv"

	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
)

var visits = sessionstore.NewAttr[int]("visits")

func handler(sessions *middleware.Sessions) http.Handler {
	e := echo.New()
	e.Use(echomiddleware.RecoverWithConfig(echomiddleware.RecoverConfig{
		// This recovers inside of the sessions, so it must say that what the
		// handler changed is not to be kept.
		LogErrorFunc: func(c echo.Context, err error, _ []byte) error {
			sessionstore.FromContext(c.Request().Context()).Discard()
			return err
		},
	}))
	e.GET("/", func(c echo.Context) error {
		s := sessionstore.FromContext(c.Request().Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		return c.String(http.StatusOK, "visit "+strconv.Itoa(n))
	})
	e.POST("/login", func(c echo.Context) error {
		sessionstore.FromContext(c.Request().Context()).SetPrincipal("ann")
		return c.String(http.StatusOK, "welcome")
	})
	e.GET("/account", func(c echo.Context) error {
		return c.String(http.StatusOK, sessionstore.FromContext(c.Request().Context()).Principal())
	}, echo.WrapMiddleware(sessions.RequirePrincipal))
	e.GET("/fail", func(c echo.Context) error {
		visits.Set(sessionstore.FromContext(c.Request().Context()), 1000)
		panic("oops")
	})
	// Around the instance, so that the error handler's answers are inside too.
	return sessions.Handler(e)
}

func main() {
	sessions, err := hello.Sessions()
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler(sessions)))
}
