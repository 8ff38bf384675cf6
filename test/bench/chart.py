"""Bars of ratios to native on a logarithmic axis, as SVG."""
import math
from xml.sax.saxutils import escape

COLOURS = {"ravelin": "#1b6ca8", "runc": "#8f8f8f", "bwrap": "#bdbdbd", "proot": "#c9a66b", "gvisor": "#d1495b"}
BAR, GAP, LEFT, WIDTH, TOP = 7, 9, 150, 640, 46
LOW, HIGH = 0.01, 100.0


def position(ratio):
    clamped = min(max(ratio, LOW), HIGH)
    return LEFT + WIDTH * (math.log10(clamped) - math.log10(LOW)) / (math.log10(HIGH) - math.log10(LOW))


def svg(rows, names, title):
    """rows: [(label, {system: ratio or None})]; ratio above 1: slower than native."""
    height = TOP + sum(GAP + BAR * len(names) for _ in rows) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="100%" height="100%" fill="white"/><text x="8" y="16" font-size="13">{escape(title)}</text>']
    x = LEFT
    for name in names:
        out.append(f'<rect x="{x}" y="24" width="9" height="9" fill="{COLOURS.get(name, "#444")}"/>'
                   f'<text x="{x + 13}" y="33">{escape(name)}</text>')
        x += 80
    for power in range(-2, 3):
        at = position(10.0 ** power)
        out.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{height - 22}" '
                   f'stroke="{"#000" if power == 0 else "#ddd"}"/>'
                   f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle">{10.0 ** power:g}x</text>')
    y, one = TOP, position(1)
    for label, ratios in rows:
        out.append(f'<text x="{LEFT - 6}" y="{y + BAR * len(names) / 2 + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        for name in names:
            ratio = ratios.get(name)
            if ratio:
                at = position(ratio)
                out.append(f'<rect x="{min(one, at):.1f}" y="{y}" width="{max(abs(at - one), 1):.1f}" height="{BAR - 1}" '
                           f'fill="{COLOURS.get(name, "#444")}"><title>{escape(f"{label} {name} {ratio:.2f}x")}</title></rect>')
            y += BAR
        y += GAP
    return "\n".join(out + ["</svg>", ""])
