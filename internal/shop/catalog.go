package shop

import "slices"

// A product is something the shop sells.
type product struct {
	Slug  string // in URLs and carts, and the name of its picture
	Name  string
	About string
	Cents int
}

// catalog is all there is. It is never changed.
var catalog = []product{
	{"anchor", "Pocket anchor", "Forged steel, 400 g. Holds a dinghy, or a door.", 3400},
	{"rope", "Hemp rope, 20 m", "Three strands, laid by hand, spliced at one end.", 2650},
	{"lantern", "Storm lantern", "Burns eleven hours on one filling, in any wind.", 4900},
	{"compass", "Brass compass", "Liquid damped, with a lid that shuts with a click.", 5800},
	{"buoy", "Lifebuoy", "Cork under canvas. Hangs on a wall just as well.", 4200},
	{"mug", "Enamel mug", "Chips before it breaks. Half a litre of anything hot.", 1250},
	{"pennant", "Signal pennant", "Number four: a white cross on red, cotton.", 1800},
	{"spyglass", "Spyglass", "Eight times nearer, in three brass draws.", 7900},
}

func productBySlug(slug string) (product, bool) {
	i := slices.IndexFunc(catalog, func(p product) bool { return p.Slug == slug })
	if i < 0 {
		return product{}, false
	}
	return catalog[i], true
}
