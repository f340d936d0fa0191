"""Draws a profile as a flame graph: wide is expensive, callers above what they call."""

import collections
import html

from callgrind import PARTS, shorten

WIDTH, ROW, MARGIN = 1200, 18, 10
#: Narrower boxes are left out.
BOX_MIN = 3
COLORS = ["#e8743b", "#f2a65a", "#f7c873", "#d95d39", "#b5446e", "#e0a3b6", "#c97064",
          "#5b8db8", "#6ba58f", "#a3a7ad", "#bcc1c8", "#8d99ae", "#d6d9de"]


def draw(profile, title):
    """SVG text. Callgrind counts calls, not stacks: a function's cost is split between callers in proportion."""
    boxes = []
    roots = _roots(profile)
    total = sum(cost for _, cost in roots) or 1
    left = MARGIN
    for root, cost in roots:
        left = _place(profile, root, cost, left, 0, WIDTH / total, (), boxes)
    depth = max((box[2] for box in boxes), default=0) + 1
    legend = _legend(profile)
    height = 46 + ROW * (depth + 1) + 16 * ((len(legend) + 2) // 3) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * MARGIN} {height}" '
        'font-family="Verdana, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="22" font-size="15">{html.escape(title)}: '
        f"{profile.total:,.0f} user-space instructions per request</text>"]
    for x, width, row, name, cost in boxes:
        y, label = 36 + row * ROW, shorten(name, 120)
        lines.append(
            f'<g><title>{html.escape(label)}: {cost:,.0f} ({cost / total:.1%})</title>'
            f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.6, 0.6):.1f}" height="{ROW - 1}" rx="2" '
            f'fill="{_color(name)}"/>')
        if width > 40:
            text = shorten(_last(label), int(width / 6.6))
            lines.append(f'<text x="{x + 3:.1f}" y="{y + 13}">{html.escape(text)}</text>')
        lines.append("</g>")
    for number, (part, cost, color) in enumerate(legend):
        x, y = MARGIN + number % 3 * 400, 46 + ROW * (depth + 1) + number // 3 * 16
        lines.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{color}"/>'
                     f'<text x="{x + 15}" y="{y}">{html.escape(part)}: {cost:,.0f}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _roots(profile):
    """Where the picture begins: below what merely calls the one function that spends nearly everything."""
    inclusive = profile.inclusive()
    callees = {callee for (_, callee), cost in profile.calls.items() if cost > 0}
    top = max((name for name in inclusive if name not in callees), key=lambda name: inclusive[name])
    seen = {top}
    while True:
        below = collections.Counter({
            callee: cost for (caller, callee), cost in profile.calls.items() if caller == top and callee not in seen})
        child, cost = next(iter(below.most_common(1)), (None, 0))
        if child is None or cost < 0.9 * profile.total:
            return [(top, inclusive[top])]
        top = child
        seen.add(top)


def _place(profile, name, cost, left, row, scale, path, boxes):
    """Puts a function and what it calls into `boxes`; where the next one begins."""
    width = cost * scale
    if width < BOX_MIN:
        return left + width
    boxes.append((left, width, row, name, cost))
    below = {callee: spent for (caller, callee), spent in profile.calls.items()
             if caller == name and spent > 0 and callee not in path and callee != name}
    whole = max(profile.own[name], 0) + sum(below.values())
    share = cost / whole if whole else 0
    x = left
    for callee, spent in sorted(below.items(), key=lambda item: -item[1]):
        x = _place(profile, callee, spent * share, x, row + 1, scale, (*path, name), boxes)
    return left + width


def _color(name):
    return next(color for (_, pattern), color in zip(PARTS, COLORS) if pattern.search(name))


def _legend(profile):
    colors = dict(zip((part for part, _ in PARTS), COLORS))
    return [(part, cost, colors[part]) for part, cost in profile.parts()]


def _last(name):
    """The end of a path: `hit` of `flagside::api::Prepared::hit`; with its type if there is one."""
    plain = name.split(" as ")[0].lstrip("<") if name.startswith("<") and " as " in name else name
    tail = name.rpartition("::")[2]
    return f"{plain.rpartition('::')[2]}::{tail}" if plain != name else "::".join(name.split("::")[-2:])
