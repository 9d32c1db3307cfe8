package shop

import (
	"net/http"
	"strconv"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// maxQuantity bounds one line of the cart.
	maxQuantity = 99
	// maxFormBytes bounds a posted form; the longest has a note in it.
	maxFormBytes = 16 << 10
)

// A basket is what the cart holds: quantities by product.
type basket map[string]int

var cart = sessionstore.NewAttr[basket]("cart")

// items counts what is known to the catalog: the JSON interface may have put
// anything into the attribute.
func (b basket) items() (n int) {
	for _, p := range catalog {
		n += b.quantity(p)
	}
	return n
}

func (b basket) quantity(p product) int { return min(max(0, b[p.Slug]), maxQuantity) }

// with returns the basket with another quantity of a product, 0 for none of it.
func (b basket) with(p product, quantity int) basket {
	if b == nil {
		b = basket{}
	}
	if b[p.Slug] = min(max(0, quantity), maxQuantity); b[p.Slug] == 0 {
		delete(b, p.Slug)
	}
	return b
}

// A line is one line of the cart's page.
type line struct {
	product
	Quantity, Total int
}

func (b basket) lines() (lines []line, total int) {
	for _, p := range catalog {
		if q := b.quantity(p); q > 0 {
			lines = append(lines, line{p, q, q * p.Cents})
			total += q * p.Cents
		}
	}
	return lines, total
}

func (site *Site) showCatalog(w http.ResponseWriter, r *http.Request) {
	site.shop.render(w, r, page{name: "catalog", title: "Gear that holds fast", section: "shop", content: catalog})
}

func (site *Site) showCart(w http.ResponseWriter, r *http.Request) {
	contents, _ := cart.Get(sessionstore.FromContext(r.Context()))
	lines, total := contents.lines()
	site.shop.render(w, r, page{name: "cart", title: "Your cart", section: "cart", content: map[string]any{
		"Lines": lines, "Total": total, "MaxQuantity": maxQuantity,
	}})
}

// addToCart puts one more of a product into the cart. Two browsers' tabs may do so
// at once: the function is replayed, and neither is lost (P2).
func (site *Site) addToCart(w http.ResponseWriter, r *http.Request) {
	p, ok := productBySlug(r.PathValue("product"))
	if !ok {
		site.shop.deny(w, r, http.StatusNotFound, "we do not sell that")
		return
	}
	s := sessionstore.FromContext(r.Context())
	cart.Update(s, func(b basket) basket { return b.with(p, b.quantity(p)+1) })
	back(w, r, "/", p.Name+" is in your cart.")
}

func (site *Site) setQuantity(w http.ResponseWriter, r *http.Request) {
	p, ok := productBySlug(r.PathValue("product"))
	if !ok {
		site.shop.deny(w, r, http.StatusNotFound, "we do not sell that")
		return
	}
	quantity, err := strconv.Atoi(formValue(w, r, "quantity"))
	if err != nil || quantity < 0 || quantity > maxQuantity {
		site.shop.deny(w, r, http.StatusBadRequest, "a quantity is a number from 0 to "+strconv.Itoa(maxQuantity))
		return
	}
	s := sessionstore.FromContext(r.Context())
	cart.Update(s, func(b basket) basket { return b.with(p, quantity) })
	message := "Quantity changed."
	if quantity == 0 {
		message = p.Name + " is out of your cart."
	}
	back(w, r, "/cart", message)
}

func (site *Site) emptyCart(w http.ResponseWriter, r *http.Request) {
	cart.Delete(sessionstore.FromContext(r.Context()))
	back(w, r, "/cart", "Your cart is empty.")
}

// formValue returns a field of a posted form, "" for one that is missing or too large.
func formValue(w http.ResponseWriter, r *http.Request, field string) string {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	return r.PostFormValue(field)
}
