"""Plots as SVG, by hand: lines, steps, points and bars with axes, ticks, a legend and marks.

A plot is a dict:
    {"title", "x_label", "y_label", "series": [{"name", "x": [], "y": []}]}
and may have
    "kind"    "line" (default), "step", "points" (with lines between them) or "bars" (x: names)
    "y_log"   true: logarithmic y axis
    "x_min"   left end of the x axis; else where the first point is
    "y_max"   upper end of the y axis; else that of the points; it begins at 0
    "marks"   [{"x", "text"}]: vertical lines at events
A y of None leaves a gap. Colours are told apart by colour-blind eyes, and each series has a dash
pattern of its own; light or dark follows the reader's settings.
"""
import html
import math

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, BOTTOM = 76, 18, 52
LEGEND_LINE = 20
CHARACTER = 7.6  # Mean width of a letter at 13 px.
POINTS_MAX = 400  # Of a series; more are thinned out, extremes kept.
TICKS = 6

# Okabe and Ito's palette; on dark ground its lighter shades.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#444444", "#8c510a")
DARK = ("#56b4e9", "#ff8c42", "#2fd6a5", "#e8a5cb", "#f0e442", "#9ad1f5", "#d0d0d0", "#d8a25e")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2", "6 2 1 2 1 2")


def style():
    """CSS of a plot, for inside an <svg> or a page."""
    def colours(palette, ink, faint, ground):
        rules = [f".ground{{fill:{ground}}}", f".ink{{fill:{ink}}}", f".axis{{stroke:{ink}}}",
                 f".grid{{stroke:{faint}}}", f".mark{{stroke:{ink}}}"]
        for i, colour in enumerate(palette):
            rules.append(f".l{i}{{stroke:{colour}}}.f{i}{{fill:{colour}}}")
        return "".join(rules)
    return ("text{font:13px 'DejaVu Sans',Verdana,sans-serif}.title{font-size:15px;font-weight:bold}"
            ".line{fill:none;stroke-width:2;stroke-linejoin:round}.grid{stroke-width:1}"
            ".mark{stroke-width:1;stroke-dasharray:3 4}"
            + colours(LIGHT, "#222222", "#dddddd", "#ffffff")
            + "@media(prefers-color-scheme:dark){"
            + colours(DARK, "#dddddd", "#3c4048", "#16181d") + "}")


def text_of(value):
    """A number as a reader wants it: 4 significant digits, thousands marked."""
    if value is None:
        return ""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    if value != value or math.isinf(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1e-4:
        return f"{value:.3g}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def tick_texts(values, step):
    """All in one unit, with as many digits as tell neighbours apart."""
    largest = max(abs(value) for value in values)
    unit, suffix = next(((u, s) for limit, u, s in ((1e9, 1e9, "G"), (1e6, 1e6, "M"),
                                                    (1e4, 1e3, "k")) if largest >= limit), (1, ""))
    digits = next(d for d in range(12) if d == 11 or
                  abs(round(step / unit, d) - step / unit) < 1e-6 * step / unit)
    return ["0" if value == 0 else f"{value / unit:.{digits}f}{suffix}" for value in values]


def nice_step(span, count):
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 2.5, 5, 10):
        if raw <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


class Axis:
    """From values to pixels, and where the ticks stand."""

    def __init__(self, low, high, start, end, logarithmic=False, tight=False):
        self.logarithmic = logarithmic
        if logarithmic:
            low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            high = max(high, low + 1)
            self.ticks = [(10.0 ** e, f"{10.0 ** e:g}") for e in range(low, high + 1)]
        else:
            high = high if high > low else low + (abs(low) or 1)
            step = nice_step(high - low, TICKS)
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if not tight:
                last = math.ceil(high / step - 1e-9)
                high = last * step
            values = [i * step for i in range(first, last + 1)]
            self.ticks = list(zip(values, tick_texts(values, step)))
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value):
        if self.logarithmic:
            value = math.log10(max(value, 10.0 ** self.low))
        value = min(max(value, self.low), self.high)
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def thinned(points):
    """At most POINTS_MAX points: of each stretch the lowest and the highest."""
    if len(points) <= POINTS_MAX:
        return points
    kept, size = [], 2 * len(points) / POINTS_MAX
    for i in range(POINTS_MAX // 2):
        stretch = points[int(i * size):int((i + 1) * size)]
        known = [p for p in stretch if p[1] is not None]
        if not known:
            kept.append((stretch[0][0], None))
            continue
        low, high = min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])
        kept += sorted({low, high})
    return kept


def legend_rows(names):
    """Names by lines that fit: [[(x, index, name)]]."""
    rows, x = [[]], LEFT
    for i, name in enumerate(names):
        width = 40 + CHARACTER * len(name) + 14
        if rows[-1] and x + width > WIDTH - RIGHT:
            rows.append([])
            x = LEFT
        rows[-1].append((x, i, name))
        x += width
    return rows


def text(x, y, words, anchor="start", kind="ink", more=""):
    return (f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>'
            f"{html.escape(str(words))}</text>")


def draw_axes(plot, x_axis, y_axis, top, bottom, names):
    out = []
    for value, label in y_axis.ticks:
        y = y_axis(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(text(LEFT - 8, y + 4.5, label, "end"))
    if names is None:
        for value, label in x_axis.ticks:
            x = x_axis(value)
            out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
            out.append(text(x, bottom + 19, label, "middle"))
    else:
        width = (WIDTH - RIGHT - LEFT) / max(1, len(names))
        longest = max((len(name) for name in names), default=1)
        every = max(1, math.ceil((longest + 1) * CHARACTER / width))
        for i in range(0, len(names), every):
            out.append(text(LEFT + (i + 0.5) * width, bottom + 19, names[i], "middle"))
    out.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    out.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 42, plot["x_label"], "middle"))
    middle = (top + bottom) / 2
    out.append(text(18, middle, plot["y_label"], "middle",
                    more=f' transform="rotate(-90 18 {middle:.1f})"'))
    return out


def draw_line(points, x_axis, y_axis, index, kind):
    colour, dash = index % len(LIGHT), DASHES[index % len(DASHES)]
    path, out, pen_down, last_y = [], [], False, None
    for x, y in points:
        if y is None:
            pen_down = False
            continue
        at_x, at_y = x_axis(x), y_axis(y)
        if pen_down and kind == "step":
            path.append(f"L{at_x:.1f} {last_y:.1f}")
        path.append(f"{'L' if pen_down else 'M'}{at_x:.1f} {at_y:.1f}")
        pen_down, last_y = True, at_y
        if kind == "points":
            out.append(f'<circle class="f{colour}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="3.5"/>')
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    if path:
        out.insert(0, f'<path class="line l{colour}" d="{"".join(path)}"{dashes}/>')
    return out


def draw_bars(series, names, y_axis, bottom):
    out = []
    width = (WIDTH - RIGHT - LEFT) / max(1, len(names))
    bar = width * 0.8 / max(1, len(series))
    for i, one in enumerate(series):
        for name, y in zip(one["x"], one["y"]):
            if y is None:
                continue
            x = LEFT + names.index(str(name)) * width + width * 0.1 + i * bar
            out.append(f'<rect class="f{i % len(LIGHT)}" x="{x:.1f}" y="{y_axis(y):.1f}" '
                       f'width="{max(bar - 0.5, 0.5):.1f}" height="{bottom - y_axis(y):.1f}"/>')
    return out


def y_axis_of(plot, series, top, bottom):
    values = [y for one in series for y in one["y"] if y is not None]
    if plot.get("y_log"):
        values = [y for y in values if y > 0] or [1]
        return Axis(min(values), max(values), bottom, top, True)
    low = min(values + [0])
    return Axis(low, plot.get("y_max") or max(values + [low + 1e-9]), bottom, top)


def draw(plot, standalone=True):
    """One plot as an <svg> element; `standalone` brings its own style."""
    series, kind = plot["series"], plot.get("kind", "line")
    rows = legend_rows([one["name"] for one in series])
    top = 38 + LEGEND_LINE * len(rows) + (16 if plot.get("marks") else 0)
    bottom = HEIGHT - BOTTOM
    y_axis = y_axis_of(plot, series, top, bottom)
    names, x_axis = None, None
    if kind == "bars":
        names = list(dict.fromkeys(str(x) for one in series for x in one["x"]))
    else:
        xs = [x for one in series for x in one["x"]] or [0]
        x_axis = Axis(plot.get("x_min", min(xs)), max(xs), LEFT, WIDTH - RIGHT, tight=True)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" role="img">',
           f"<title>{html.escape(plot['title'])}</title>"]
    if standalone:
        out.append(f"<style>{style()}</style>")
    out.append(f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>')
    out.append(text(LEFT, 24, plot["title"], kind="ink title"))
    for line, row in enumerate(rows):
        y = 44 + LEGEND_LINE * line
        for x, i, name in row:
            dash = f' stroke-dasharray="{DASHES[i % len(DASHES)]}"' if kind != "bars" else ""
            out.append(f'<line class="line l{i % len(LIGHT)}" x1="{x:.1f}" x2="{x + 30:.1f}" '
                       f'y1="{y - 4}" y2="{y - 4}"{dash} style="stroke-width:3"/>')
            out.append(text(x + 36, y, name))
    out += draw_axes(plot, x_axis, y_axis, top, bottom, names)
    for mark in plot.get("marks", ()) if x_axis else ():
        x = x_axis(mark["x"])
        right = x > (LEFT + WIDTH) * 0.6
        out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 14}" y2="{bottom}"/>')
        out.append(text(x + (-4 if right else 4), top - 5, mark["text"], "end" if right else "start"))
    if kind == "bars":
        out += draw_bars(series, names, y_axis, bottom)
    else:
        for i, one in enumerate(series):
            out += draw_line(thinned(list(zip(one["x"], one["y"]))), x_axis, y_axis, i, kind)
    out.append("</svg>")
    return "".join(out)
