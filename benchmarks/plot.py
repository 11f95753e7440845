"""Small charts as SVG, readable in light and dark: bars by a logarithm, and curves over one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH = 860
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#333}.ours{fill:#2563a8}.theirs{fill:#9aa4ae}.line{fill:none;"
    "stroke:#2563a8;stroke-width:2}.grid{stroke:#d5d9dd}.faint{fill:#777}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}.faint{fill:#999}.theirs{fill:#6b757f}"
    ".ours{fill:#5b9bd5}.line{stroke:#5b9bd5}}</style>"
)


def bars(title: str, rows: Sequence[tuple[str, float, bool]], *, unit: str) -> str:
    """Label, value, and whether it is ours; each bar's length is the logarithm of its value."""
    left, right, top, step = 400, 100, 46, 26
    least = 10 ** math.floor(math.log10(min(value for _, value, _ in rows)))
    most = 10 ** math.ceil(math.log10(max(value for _, value, _ in rows)))
    height = top + step * len(rows) + 34
    parts = [_head(title, height), f'<text class="faint" x="{left}" y="38">{escape(unit)}, logarithmic</text>']
    room = WIDTH - left - right

    def along(value: float) -> float:
        return left + room * math.log(value / least) / math.log(most / least)

    mark = least
    while mark <= most:
        x = along(mark)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - 26}"/>')
        parts.append(f'<text class="faint" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{_short(mark)}</text>')
        mark *= 10
    for position, (label, value, ours) in enumerate(rows):
        y = top + position * step
        end = along(value)
        kind = "ours" if ours else "theirs"
        parts.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{y + 4}" width="{max(1.0, end - left):.1f}" height="17" rx="2"/>'
        )
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 17}">{value:,.0f}</text>')
    return "".join(parts) + "</svg>\n"


def curves(title: str, across: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], *, unit: str) -> str:
    """Small charts below each other, one a line, all over the same logarithmic axis; each begins at zero."""
    left, right, top, each = 60, 190, 46, 120
    height = top + each * len(lines) + 24
    parts = [_head(title, height)]
    room = WIDTH - left - right
    least, most = min(across), max(across)

    def along(value: float) -> float:
        return left + room * math.log(value / least) / math.log(most / least)

    for position, (label, values) in enumerate(lines):
        low, high = top + position * each + each - 26, top + position * each + 14
        greatest = max(values) or 1.0
        points = [(along(x), low - (low - high) * value / greatest) for x, value in zip(across, values, strict=True)]
        parts.append(f'<line class="grid" x1="{left}" y1="{low}" x2="{left + room}" y2="{low}"/>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line" points="{path}"/>')
        for (x, y), value in zip(points, values, strict=True):
            parts.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
            parts.append(f'<text class="faint" x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">{_short(value)}</text>')
        parts.append(f'<text x="{left + room + 44}" y="{(low + high) / 2:.1f}">{escape(label)}</text>')
    parts += [
        f'<text class="faint" x="{along(x):.1f}" y="{height - 12}" text-anchor="middle">{_short(x)}</text>'
        for x in across
    ]
    parts.append(f'<text class="faint" x="{left + room + 44}" y="{height - 12}">{escape(unit)}</text>')
    return "".join(parts) + "</svg>\n"


def _head(title: str, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}">{_STYLE}<text x="8" y="20" font-weight="600">{escape(title)}</text>'
    )


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.3g} M"
    if value >= 10_000:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
