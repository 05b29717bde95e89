"""A report as one HTML file that needs nothing else: charts as SVG, every figure as a table. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from corral.measure.chart import FAINT, HIGH, INK, WIDE, Chart, Disc, Line, Mark, charts, colours_of, marks, short
from corral.measure.figures import Figure
from corral.measure.report import Report

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #222; --faint: #bbb; --paper: #fff; --stripe: #f4f4f4 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #555; --paper: #181818; --stripe: #222 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
body { margin: 2em auto; max-width: 76em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .15em .8em .15em 0; vertical-align: top } td.n, th.n { text-align: right }
tbody tr:nth-child(odd) { background: var(--stripe) }
.charts { display: flex; flex-wrap: wrap; gap: 1em } svg { width: 100%; max-width: 560px; height: auto }
svg text { font-family: system-ui, sans-serif; fill: var(--ink) } .faint { stroke: var(--faint) }
"""


def html(report: Report) -> str:
    """The whole page. What servers called themselves is text in it, never markup."""
    colours = colours_of(report)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.began_wall_s))
    drawn = "\n".join(svg(chart, colours) for chart in charts(report))
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">',
        f"<title>{escape(report.title)}: corral bench</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(report.title)}</h1>",
        f"<p>{escape(report.kind)}, {when}, took {report.took_s:.0f} s, Corral {escape(report.version)}"
        f"{f', saved as {escape(report.id)}' if report.id else ''}</p>",
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        f'<div class="charts">{drawn}</div>' if drawn else "",
        "<h2>What was measured</h2>",
        _facts({"machine": report.machine, "settings": report.settings, **report.subjects}),
        "<h2>Figures</h2><p>Medians of the runs, with the range. Times are from sending a request on an open "
        "connection; TTFT, TPOT and ITL are as <code>vllm bench serve</code> defines them.</p>",
        *(_table(name, report.of(name)) for name in report.subjects), "</body></html>",
    ]  # fmt: skip
    return "\n".join(part for part in parts if part) + "\n"


def svg(chart: Chart, colours: Mapping[str, str]) -> str:
    """One chart."""
    rows = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" role="img">']
    rows.append(f"<title>{escape(chart.title)}</title>")
    return "\n".join([*rows, *map(_mark, marks(chart, colours)), "</svg>"])


def _mark(mark: Mark) -> str:
    if isinstance(mark, Line):
        stroke = 'class="faint"' if mark.colour == FAINT else f'stroke="{mark.colour}"'
        place = f'x1="{mark.x1:.1f}" y1="{mark.y1:.1f}" x2="{mark.x2:.1f}" y2="{mark.y2:.1f}"'
        return f'<line {place} {stroke} stroke-width="{mark.wide:g}"/>'
    if isinstance(mark, Disc):
        place = f'cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{mark.r:g}"'
        return f'<circle {place} fill="{mark.colour}"><title>{escape(mark.says)}</title></circle>'
    fill = "" if mark.colour == INK else f' fill="{mark.colour}"'
    weight = ' font-weight="bold"' if mark.bold else ""
    place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{mark.anchor}" font-size="{mark.size}"'
    return f"<text {place}{fill}{weight}>{escape(mark.text)}</text>"


def _facts(groups: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(group)}</td><td>{escape(name.replace('_', ' '))}</td><td>{escape(_plain(value))}</td></tr>"
        for group, facts in groups.items()
        for name, value in facts.items()
        if value not in (None, "", [], ())
    ]
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _table(name: str, figures: Sequence[Figure]) -> str:
    rows = []
    for each in figures:
        if not each.values:
            continue
        unit = each.kind.unit
        at = "" if each.at is None else short(each.at)
        spread = f"{short(min(each.values), unit)} to {short(max(each.values), unit)}" if len(each.values) > 1 else ""
        shown = short(each.median, unit) + ("" if unit in ("bytes", "") else f" {unit}")
        rows.append(
            f'<tr><td class="n">{at}</td><td>{escape(each.part)}</td><td>{escape(each.kind.words)}</td>'
            f'<td class="n">{escape(shown)}</td><td class="n">{spread}</td><td class="n">{len(each.values)}</td></tr>'
        )
    head = '<tr><th></th><th></th><th>figure</th><th class="n">median</th><th class="n">range</th><th>runs</th></tr>'
    return f"<h3>{escape(name)}</h3><table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
