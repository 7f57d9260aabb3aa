"""One static page with pictures and numbers."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from adsq import files
from adsq.report._figure import PathLike

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #5f5f5f; --page: #ffffff; --card: #f5f6f8; --line: #dcdfe4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --faint: #a5a8ad; --page: #15171a; --card: #1f2226; --line: #34383e }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0 0 2rem }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
dt { color: var(--faint); font-size: .8rem }
dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere }
.table { overflow-x: auto; margin: 0 0 2rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption, figcaption { font-weight: 600; text-align: left; padding-bottom: .5rem }
th, td { border-bottom: 1px solid var(--line); padding: .35rem 1.25rem .35rem 0; text-align: left; white-space: nowrap }
th { color: var(--faint); font-weight: 500 }
figure { margin: 0 0 2rem }
img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: .5rem }
"""


def html_page(
    path: PathLike,
    title: str,
    summary: Sequence[tuple[str, object]],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]],
    pictures: Sequence[tuple[str, PathLike]],
) -> None:
    """Write one HTML file that needs no other: pictures are inside, there are no scripts.

    Args:
        path: The file to write.
        title: Heading of the page.
        summary: The main numbers, as (name, value).
        tables: (caption, column names, rows).
        pictures: (caption, PNG file).

    Raises:
        ValueError: A picture is not a PNG file, or a row does not have one cell a column.
        OSError: A picture cannot be read, or the page cannot be written.
    """
    parts = [f"<h1>{_text(title)}</h1>"]
    if summary:
        cells = (f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in summary)
        parts.append(f"<dl>{''.join(cells)}</dl>")
    parts += [_table(*table) for table in tables]
    parts += [_picture(*picture) for picture in pictures]
    # The policy makes the promise checkable: nothing but this style and embedded pictures is ever loaded.
    document = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{chr(10).join(parts)}
</body>
</html>
"""
    files.write_text(path, document)


def _text(value: object) -> str:
    return html.escape(str(value))


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"tables: expected {len(columns)} cells a row in {caption!r}, got {len(row)}")
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return (
        f'<div class="table"><table><caption>{_text(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _picture(caption: str, path: PathLike) -> str:
    data = Path(path).read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"pictures: expected a PNG file, got {path}")
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    text = _text(caption)
    return f'<figure><figcaption>{text}</figcaption><img src="{source}" alt="{text}"></figure>'
