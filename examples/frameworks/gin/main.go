// Command gin serves sessions around a gin engine.
package main

import (
	"log"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var visits = sessionstore.NewAttr[int]("visits")

// adapt makes a gin middleware of a net/http one, for groups and single routes.
// Sessions.Handler itself goes around the whole engine instead: gin's context
// keeps the response writer it was made with.
func adapt(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = true
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}

func handler(sessions *middleware.Sessions) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.Use(gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, _ any) {
		// This recovers inside of the sessions, so it must say that what the
		// handler changed is not to be kept.
		sessionstore.FromContext(c.Request.Context()).Discard()
		c.AbortWithStatus(http.StatusInternalServerError)
	}))
	e.GET("/", func(c *gin.Context) {
		s := sessionstore.FromContext(c.Request.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		c.String(http.StatusOK, "visit %d", n)
	})
	e.POST("/login", func(c *gin.Context) {
		sessionstore.FromContext(c.Request.Context()).SetPrincipal("ann")
		c.String(http.StatusOK, "welcome")
	})
	e.GET("/account", adapt(sessions.RequirePrincipal), func(c *gin.Context) {
		c.String(http.StatusOK, sessionstore.FromContext(c.Request.Context()).Principal())
	})
	e.GET("/fail", func(c *gin.Context) {
		visits.Set(sessionstore.FromContext(c.Request.Context()), 1000)
		panic("oops")
	})
	return sessions.Handler(e)
}

func main() {
	sessions, err := hello.Sessions()
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler(sessions)))
}
