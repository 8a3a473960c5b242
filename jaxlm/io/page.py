"""An HTML page of jaxlm: one file, pictures inside, no scripts. Pieces of it as text."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence


def render_page(title: str, body: Iterable[str]) -> str:
    """The whole page, from pieces that are HTML already."""
    return _PAGE.replace("{title}", escape(title)).replace("{body}", "\n".join(body))


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=True)


def cards(values: Mapping[str, str]) -> str:
    """The figures that matter, large: name -> value."""
    shown = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values.items())
    return f"<div class=cards>{''.join(shown)}</div>"


def pictures(titled: Iterable[tuple[str, str]]) -> str:
    """Pictures side by side: (title, svg)."""
    return f"<div class=grid>{''.join(_image(title, svg) for title, svg in titled)}</div>"


def table(rows: Mapping[str, str]) -> str:
    """Name and value, a row each."""
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{cells}</table>"


def grid_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns with names; the first cell of a row is its name."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = (
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table class=grid-table><tr>{head}</tr>{''.join(lines)}</table>"


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same table for a terminal: the first column to the left, the others to the right."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = (
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
    return "\n".join(f"  {line}".rstrip() for line in shown)


def completion(prompt: str, text: str, *, most: int = 2000) -> str:
    """A sample, its prompt in bold."""
    return f"<pre><b>{escape(prompt[:most])}</b>{escape(text[:most])}</pre>"


def _image(title: str, svg: str) -> str:
    # As an image, so that ids in one picture cannot meet those of another.
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #f9fafb; margin: 0 auto; max-width: 1080px;
  padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 17px; margin: 34px 0 10px; }
small, .quiet { color: #6b7280; font-weight: normal; font-size: 13px; margin: 2px 0 18px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; }
.cards div { flex: 1 1 140px; background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 10px 14px; }
.cards b { display: block; font-size: 21px; } .cards span { color: #6b7280; font-size: 12.5px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px; }
.grid img { width: 100%; box-sizing: border-box; background: #fff; border: 1px solid #e5e7eb; border-radius: 8px;
  padding: 8px; }
pre { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 10px 14px; margin: 0 0 10px;
  font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; background: #fff; border: 1px solid #e5e7eb; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 5px 12px; border-bottom: 1px solid #f3f4f6;
  overflow-wrap: anywhere; }
th { font-weight: 500; color: #4b5563; width: 30%; }
table.grid-table th, table.grid-table td { width: auto; overflow-wrap: break-word; }
summary { cursor: pointer; color: #2563eb; margin-bottom: 8px; } a { color: #2563eb; }
</style>
</head>
<body>
{body}
</body>
</html>
"""
