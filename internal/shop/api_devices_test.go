package shop_test

import (
	"strings"
	"testing"
	"time"
)

type device struct {
	ID, Principal, Node string
	Current             bool
	CreatedAt           time.Time  `json:"created_at"`
	AccessedAt          time.Time  `json:"accessed_at"`
	ExpiresAt           *time.Time `json:"expires_at"`
}

func (c *client) devices(app string) []device {
	c.t.Helper()
	return decode[[]device](c.do("GET", app+"/api/devices", "").wants(200))
}

func TestDevices(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		for _, app := range apps {
			// Byte by byte: these are three people.
			visitors := map[string][]*client{}
			for _, name := range []string{"Bob", "Bob", "Bob", "bob", "Bob "} {
				c := site.client()
				c.do("POST", app+"/api/login", `{"user":"`+name+`"}`).wants(200)
				visitors[name] = append(visitors[name], c)
			}
			first, second, third := visitors["Bob"][0], visitors["Bob"][1], visitors["Bob"][2]
			stranger := visitors["bob"][0]
			devices := first.devices(app)
			if len(devices) != 3 {
				t.Fatalf("Bob has %d devices, want 3: %+v", len(devices), devices)
			}
			for _, d := range devices {
				if d.Principal != "Bob" || d.Node != "node1" || d.Current != (d.ID == first.state(app).ID) || d.CreatedAt.IsZero() || d.AccessedAt.IsZero() || d.ExpiresAt == nil {
					t.Errorf("device: %+v", d)
				}
			}

			id := second.state(app).ID
			for _, text := range []string{stranger.state(app).ID, "0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11", "x", strings.ToUpper(id), id + "0"} {
				first.do("DELETE", app+"/api/devices/"+text, "").fails(404)
			}
			stranger.do("DELETE", app+"/api/devices/"+id, "").fails(404)
			first.do("DELETE", app+"/api/devices/"+id, "").wants(200)
			if s := second.state(app); !*s.New {
				t.Errorf("ended device still has %+v", s)
			}
			first.do("DELETE", app+"/api/devices/"+id, "").fails(404)

			ended := decode[map[string]int](first.do("POST", app+"/api/logout-everywhere", "").wants(200))
			if ended["ended"] != 1 || !*third.state(app).New || *first.state(app).New {
				t.Errorf("log out everywhere: %v", ended)
			}
			if *stranger.state(app).New || len(visitors["Bob "][0].devices(app)) != 1 {
				t.Error("somebody else was logged out")
			}
			// An ended device can end nothing itself.
			second.do("POST", app+"/api/logout-everywhere", "").fails(401)

			id = first.state(app).ID
			first.do("DELETE", app+"/api/devices/"+id, "").wants(200)
			if s := first.state(app); !*s.New || first.token() != "" {
				t.Errorf("after ending this device: %+v", s)
			}
		}
	})
}

func TestApplicationsShareFateOnly(t *testing.T) {
	onEach(t, func(t *testing.T, site *site) {
		c := site.client()
		c.do("PUT", "/api/attributes/a", `"shop"`).wants(200)
		c.do("POST", "/api/login", `{"user":"Ada"}`).wants(200)
		c.do("PUT", "/office/api/attributes/a", `"office"`).wants(200)
		c.do("POST", "/office/api/login", `{"user":"Grace"}`).wants(200)
		shop, office := c.state(""), c.state("/office")
		if shop.ID != office.ID || *shop.Principal != "Ada" || *office.Principal != "Grace" ||
			string(shop.Attributes["a"]) != `"shop"` || string(office.Attributes["a"]) != `"office"` {
			t.Errorf("shop %+v, office %+v", shop, office)
		}
		// The same name in the other application is somebody else.
		clerk := site.client()
		clerk.do("POST", "/office/api/login", `{"user":"Ada"}`).wants(200)
		if n := len(c.devices("")); n != 1 {
			t.Errorf("Ada has %d devices in the shop, want 1", n)
		}
		c.do("DELETE", "/api/devices/"+clerk.state("/office").ID, "").fails(404)
		c.do("POST", "/api/logout-everywhere", "").wants(200)
		if *clerk.state("/office").New {
			t.Error("logging out everywhere in the shop ended a session of the office")
		}
		c.do("POST", "/office/api/logout", "").wants(200)
		if !*c.state("").New || !*c.state("/office").New || c.token() != "" {
			t.Error("the shop's session survived the office's logout")
		}
	})
}
