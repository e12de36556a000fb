"""What a notebook shows of an object: a small HTML table, with pictures beside it; every text is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

#: Entries of a list or mapping that a cell shows.
_SHOWN = 8


def table_html(title: str, facts: Mapping[str, object], image: str = "") -> str:
    """A table of facts.

    Args:
        title: above the table.
        facts: name -> value; None and what is empty is left out. Numbers get separators, of lists and mappings the
            first 8 entries are shown, and an object that has ``_repr_html_`` shows itself.
        image: HTML that stands beside the table, such as `jpeg_html` gives.
    """
    rows = "".join(
        f'<tr style="vertical-align:top"><th style="text-align:left;white-space:nowrap">{html.escape(name)}</th>'
        f'<td style="text-align:left">{_cell(value)}</td></tr>'
        for name, value in facts.items()
        if value is not None and value != "" and value != [] and value != {} and value != ()
    )
    table = f"<div><p><b>{html.escape(title)}</b></p><table><tbody>{rows}</tbody></table></div>"
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{table}{image}</div>'


def jpeg_html(jpeg: bytes, text: str, *, width: int | None = None, height: int | None = None) -> str:
    """A JPEG file as an image that is part of the page.

    Args:
        jpeg: the file.
        text: shown on hover, and read to those who do not see it.
        width, height: on the page, pixels; the image's own by default.
    """
    size = "".join(f' {name}="{value}"' for name, value in (("width", width), ("height", height)) if value is not None)
    words = html.escape(text)
    uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return f'<img src="{uri}"{size} alt="{words}" title="{words}" style="max-width:100%">'


def _cell(value: object) -> str:
    own = getattr(value, "_repr_html_", None)
    if callable(own):
        return str(own())
    if isinstance(value, Mapping):
        return _list([f"{name}: {_text(one)}" for name, one in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _list([_text(one) for one in value])
    return html.escape(_text(value))


def _list(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - _SHOWN:,} more"] if len(texts) > _SHOWN else []
    return "<br>".join(html.escape(text) for text in [*texts[:_SHOWN], *more])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
