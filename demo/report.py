"""The demonstration's result as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

#: Key of a row, heading, how the value is shown.
COLUMNS = (
    ("request", "Request", "text"),
    ("match", "Match", "match"),
    ("candidate", "Made from", "text"),
    ("predicted_cost", "Predicted cost", "seconds"),
    ("bytes_fetched", "Fetched", "bytes"),
    ("bytes_injected", "Injected", "bytes"),
    ("assembly_seconds", "Assembly", "seconds"),
    ("boot_seconds", "Boot", "seconds"),
    ("http_seconds", "First HTTP 200", "bar"),
)
#: Kinds of work in the order of a launch; others follow in order of appearance.
KINDS = ("build", "capture", "plan", "fetch", "assemble", "publish", "boot", "answer")

_COLOURS = 8  # --k0 to --k7 of the style sheet
_WIDTH, _LABEL, _LANE, _BAR, _TOP = 960, 205, 30, 16, 26

_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6776; --line: #dfe4ea;
  --k0: #8492a6; --k1: #8a63d2; --k2: #b07d12; --k3: #0f8f8c; --k4: #2f6fde; --k5: #2e8b57;
  --k6: #d9622b; --k7: #c23d78; --good: #1d7a46; --goodbg: #e1f4e8; --tag: #eaf0fb;
  --tagink: #2a55a5; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2029; --ink: #e6ebf2; --soft: #98a5b5; --line: #2c3542;
  --k0: #76859a; --k1: #a98bea; --k2: #d9a740; --k3: #35b8b3; --k4: #5f97f7; --k5: #4fb57c;
  --k6: #f0844f; --k7: #e2709f; --good: #7fdba4; --goodbg: #173626; --tag: #1e2c45;
  --tagink: #a6c5ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 32px 0 10px; }
p { margin: 0 0 8px; color: var(--soft); max-width: 72ch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 11px; text-align: right; white-space: nowrap; font-size: 14px; }
th { font-weight: 600; font-size: 13px; color: var(--soft); vertical-align: bottom;
  white-space: normal; }
td { border-top: 1px solid var(--line); }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 130px; }
.text, .match { text-align: left; }
td.text:first-child { font-weight: 600; }
.tag { background: var(--tag); color: var(--tagink); border-radius: 99px; padding: 1px 10px;
  font-size: 13px; }
.tag.exact { background: var(--goodbg); color: var(--good); }
th.bar { min-width: 120px; }
.bar i { display: block; height: 4px; border-radius: 2px; margin: 1px 0 0 auto;
  background: var(--k4); opacity: .55; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); margin: 0; }
dl div { padding: 10px 14px; }
dt { font-size: 13px; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; min-width: 680px; height: auto; padding: 8px 0; }
svg text { font-size: 12px; fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 10px 14px; font-size: 13px;
  border-top: 1px solid var(--line); }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 6px; }
""" + "".join(f".k{n} {{ fill: var(--k{n}); background: var(--k{n}); }}\n" for n in range(_COLOURS))


def render(rows: Sequence[Mapping[str, Any]], timeline: Sequence[Mapping[str, Any]],
           facts: Mapping[str, Any]) -> str:
    """The report.

    :param rows: one a launch, with the keys of :data:`COLUMNS`: ``request``,
        ``match`` and ``candidate`` are texts, ``predicted_cost`` and what
        ends in ``seconds`` are seconds, what begins with ``bytes`` is bytes;
        an absent one or None is shown as a dash
    :param timeline: ``name`` (the lane: one a launch or a preparation),
        ``start`` and ``end`` in seconds from any common beginning, ``kind``
        (one of :data:`KINDS` or a new one)
    :param facts: what is worth knowing of the machine and the run
    """
    told = "".join(f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>"
                   for name, value in facts.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>splitimage demonstration</title><style>{_STYLE}</style></head><body><main>
<h1>One composite image, any combination</h1>
<p>A gold machine was captured once. Each row is a server launched from it: made from the
nearest image in the store, booted, and asked for a page over HTTP.</p>
<h2>Launches</h2><div class="card">{_table(rows)}</div>
<h2>Where the time went</h2><div class="card">{_picture(timeline)}</div>
<h2>This run</h2><div class="card"><dl>{told}</dl></div>
</main></body></html>
"""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    longest = max((row.get("http_seconds") or 0.0 for row in rows), default=0.0) or 1.0
    head = "".join(f'<th class="{how}">{title}</th>' for _, title, how in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f'<td class="{how}">{_cell(row.get(key), how, longest)}</td>'
                         for key, _, how in COLUMNS) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _cell(value: Any, how: str, longest: float) -> str:
    if value is None:
        return "&ndash;"
    if how == "match":
        word = escape(str(value))
        return f'<span class="tag {"exact" if value == "exact" else ""}">{word}</span>'
    if how == "bytes":
        return size(value)
    if how == "seconds":
        return seconds(value)
    if how == "bar":
        return f'{seconds(value)}<i style="width:{100 * value / longest:.1f}%"></i>'
    # May be broken after a plus.
    return escape(str(value)).replace("+", "+<wbr>")


def _picture(timeline: Sequence[Mapping[str, Any]]) -> str:
    if not timeline:
        return "<p>Nothing was timed.</p>"
    begin = min(event["start"] for event in timeline)
    length = max(event["end"] for event in timeline) - begin or 1.0
    lanes = list(dict.fromkeys(str(event["name"]) for event in timeline))
    seen = dict.fromkeys(str(event["kind"]) for event in timeline)
    kinds = [kind for kind in KINDS if kind in seen] + [k for k in seen if k not in KINDS]
    colours = {kind: (KINDS.index(kind) if kind in KINDS else number) % _COLOURS
               for number, kind in enumerate(kinds)}
    scale = (_WIDTH - _LABEL - 70) / length
    height = _TOP + _LANE * len(lanes)
    drawn = [_axis(length, scale, height)]
    for number, lane in enumerate(lanes):
        top = _TOP + number * _LANE + (_LANE - _BAR) / 2
        events = [event for event in timeline if str(event["name"]) == lane]
        drawn.append(f'<text x="{_LABEL - 12}" y="{top + 12}" text-anchor="end">'
                     f"{escape(_short(lane))}</text>")
        for event in events:
            took = event["end"] - event["start"]
            left = _LABEL + (event["start"] - begin) * scale
            drawn.append(
                f'<rect class="k{colours[str(event["kind"])]}" x="{left:.1f}" y="{top}" rx="2" '
                f'width="{max(took * scale, 1.5):.1f}" height="{_BAR}">'
                f'<title>{escape(lane)}: {escape(str(event["kind"]))}, {seconds(took)}</title>'
                "</rect>")
        last = max(event["end"] for event in events)
        whole = last - min(event["start"] for event in events)
        drawn.append(f'<text class="soft" x="{_LABEL + (last - begin) * scale + 7:.1f}" '
                     f'y="{top + 12}">{seconds(whole)}</text>')
    key = "".join(f'<span><i class="k{colours[kind]}"></i>{escape(kind)}</span>'
                  for kind in kinds)
    return (f'<svg viewBox="0 0 {_WIDTH} {height + 6}" role="img" '
            f'aria-label="Timeline of the run">{"".join(drawn)}</svg>'
            f'<div class="key">{key}</div>')


def _axis(length: float, scale: float, height: float) -> str:
    step = next((s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
                 if length / s <= 9), 3600)
    return "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height}"/>'
        f'<text class="soft" x="{x:.1f}" y="{_TOP - 12}" text-anchor="middle">{_clock(at)}</text>'
        for at, x in ((at, _LABEL + at * scale) for at in _steps(length, step)))


def _steps(length: float, step: int) -> Iterable[int]:
    return range(0, int(length) + 1, step)


def _clock(at: int) -> str:
    return f"{at // 60}:{at % 60:02d}"


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[:most - 1] + "…"


def seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value else "0 s"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
