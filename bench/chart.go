package main

import (
	"fmt"
	"html"
	"strings"
)

// A drawing is a part of a chart.
type drawing interface {
	height() float64
	draw(b *strings.Builder, y float64)
}

const (
	chartWidth = 760.0
	labelWidth = 250.0
	barHeight  = 20.0
	margin     = 16.0
)

// The colours follow the reader's: dark text on light, or the other way round.
const chartStyle = `<style>
.ground{fill:#ffffff}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d1d9e0;stroke-width:1}
.other{fill:#9aa4af}.ours{fill:#0a7c66}.line{fill:none;stroke:#0a7c66;stroke-width:2}
@media (prefers-color-scheme: dark){
.ground{fill:#0d1117}.text{fill:#f0f6fc}.faint{fill:#9198a1}.grid{stroke:#3d444d}
.other{fill:#6a737d}.ours{fill:#3fb99c}.line{stroke:#3fb99c}}
text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;font-size:13px}
.title{font-size:17px;font-weight:600}.panel{font-weight:600}
</style>`

// draw puts the drawings below each other.
func draw(title, subtitle string, drawings []drawing) string {
	height := 64.0
	for _, d := range drawings {
		height += d.height() + margin
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" role="img" aria-label="%s">`+"\n%s\n",
		chartWidth, height, chartWidth, html.EscapeString(title), chartStyle)
	fmt.Fprintf(&b, `<rect class="ground" width="%.0f" height="%.0f"/>`+"\n", chartWidth, height)
	text(&b, "text title", margin, 28, title)
	text(&b, "faint", margin, 48, subtitle)
	y := 64.0
	for _, d := range drawings {
		d.draw(&b, y)
		y += d.height() + margin
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func text(b *strings.Builder, class string, x, y float64, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, html.EscapeString(s))
}

// bars compare numbers of one unit.
type bars struct {
	title string
	bars  []bar
}

type bar struct {
	name  string
	value float64
	ours  bool
	label string
}

// throughput draws results as requests per second.
func throughput(title string, rs results) bars {
	d := bars{title: title}
	for _, r := range rs {
		d.bars = append(d.bars, bar{
			name: r.name, value: r.perSecond(), ours: strings.HasPrefix(r.name, "holdfast"),
			label: number(r.perSecond(), 0) + "/s",
		})
	}
	return d
}

func (d bars) height() float64 { return 24 + barHeight*float64(len(d.bars)) }

func (d bars) draw(b *strings.Builder, y float64) {
	text(b, "text panel", margin, y+14, d.title)
	longest := 1.0
	for _, bar := range d.bars {
		longest = max(longest, bar.value)
	}
	const labelRoom = 90
	for i, bar := range d.bars {
		class, top := "other", y+24+barHeight*float64(i)
		if bar.ours {
			class = "ours"
		}
		width := max(1, bar.value/longest*(chartWidth-labelWidth-labelRoom-margin))
		text(b, "text", margin, top+13, bar.name)
		fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"/>`+"\n", class, labelWidth, top+2, width, barHeight-5)
		text(b, "text", labelWidth+width+6, top+13, bar.label)
	}
}

// A curve is a number over time.
type curve struct {
	title  string
	unit   string
	every  float64 // seconds between points
	points []float64
}

func (c curve) height() float64 { return 110 }

func (c curve) draw(b *strings.Builder, y float64) {
	const plot = 76.0
	left, right, top := margin+70, chartWidth-margin, y+24
	text(b, "text panel", margin, y+14, c.title)
	highest := 1.0
	for _, p := range c.points {
		highest = max(highest, p)
	}
	for _, part := range []float64{0, 0.5, 1} {
		at := top + plot*(1-part)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", left, right, at, at)
		text(b, "faint", margin, at+4, number(highest*part, 0)+c.unit)
	}
	b.WriteString(`<polyline class="line" points="`)
	for i, p := range c.points {
		x := left
		if len(c.points) > 1 {
			x += (right - left) * float64(i) / float64(len(c.points)-1)
		}
		fmt.Fprintf(b, "%.1f,%.1f ", x, top+plot*(1-p/highest))
	}
	b.WriteString(`"/>` + "\n")
	text(b, "faint", right-90, y+14, fmt.Sprintf("%.0f s", c.every*float64(len(c.points))))
}
