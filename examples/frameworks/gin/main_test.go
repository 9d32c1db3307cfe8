package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/walk"
	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestWalk(t *testing.T) { walk.Walk(t, handler) }

// TestStream has gin send events, for which it wants to know when the client is gone.
func TestStream(t *testing.T) {
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	app, err := sessionstore.New(ids, "gin", nil)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := middleware.New(app, &middleware.Config{InsecureCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	e := gin.New()
	e.GET("/three", func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool {
			n++
			io.WriteString(w, "event ")
			return n < 3
		})
	})
	gone := make(chan bool, 1)
	e.GET("/endless", func(c *gin.Context) {
		c.Writer.Flush()
		gone <- <-c.Writer.CloseNotify()
	})
	server := httptest.NewServer(sessions.Handler(e))
	defer server.Close()
	resp, err := http.Get(server.URL + "/three")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "event event event " {
		t.Errorf("%q, %v", body, err)
	}
	resp, err = http.Get(server.URL + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !<-gone {
		t.Error("not told that the client is gone")
	}
}
