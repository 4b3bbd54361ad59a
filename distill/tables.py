"""Tables at any width: columns where all of them fit, else one row under the other.

rich shortens what does not fit, and half a number is another number: here no cell is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

MAX_LINE = 10_000
"""Characters of a line of a table where no terminal limits it."""
_INDENT = "  "


def print_table(console: Console, table: Table) -> None:
    """Print ``table`` on a terminal, however narrow it is; elsewhere as wide as it is."""
    if not console.is_terminal:
        wide = type(console)(file=console.file, width=natural_width(table), highlight=False)
        wide.print(table)
        return
    if table.box is None and natural_width(table) > console.width:
        table.padding = (0, 1, 0, 0)  # columns one space apart
    if fitted(table, console.width):
        console.print(table)
        return
    for record in records(table, console.width):
        console.print(record, soft_wrap=True)


def natural_width(table: Table) -> int:
    """Characters of a line where nothing is wrapped."""
    return _measured(table).maximum


def fitted(table: Table, width: int) -> bool:
    """Whether ``width`` characters hold ``table`` with its words whole; if so it is made to fit."""
    needs = [_need(column) for column in table.columns]
    for column in table.columns:
        column.width = 1
    frame = natural_width(table) - len(needs)
    least = [max(1, need.minimum) for need in needs]  # rich makes no column narrower than 1
    spare = width - frame - sum(least)
    if spare < 0:
        return False
    wanted = sum(need.span for need in needs)
    share = min(spare, wanted)
    for column, narrow, need in zip(table.columns, least, needs, strict=True):
        column.overflow = "fold"  # rich takes the space after a wide letter for one too many
        column.width = narrow + (need.span * share // wanted if wanted else 0)
    return True


def records(table: Table, width: int) -> Iterator[Text]:
    """The table as text: of each row every title with its cell, in lines of ``width`` or so."""
    if table.title:
        yield _text(table.title)
    titles = [_text(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    for row, cells in zip(table.rows, rows, strict=True):
        record = _packed(list(_pieces(titles, [_text(cell) for cell in cells], width)), width)
        record.stylize_before(row.style or "")
        yield record
    if table.caption:
        yield _text(table.caption)


def _pieces(
    titles: Sequence[Text], cells: Sequence[Text], width: int
) -> Iterator[tuple[str, Text]]:
    """What must not be parted, each after its gap; empty cells are left out."""
    for title, cell in zip(titles, cells, strict=True):
        if not cell.plain.strip():
            continue
        item = Text.assemble((title.plain, "dim"), " " if title.plain else "", cell)
        if item.cell_len <= width - len(_INDENT):
            yield "  ", item
        else:  # a sentence, or a name longer than a line
            first, *words = item.split(" ")
            yield "  ", first
            yield from ((" ", word) for word in words)


def _packed(pieces: Sequence[tuple[str, Text]], width: int) -> Text:
    """``pieces`` in as few lines as they need, all but the first indented."""
    packed, used = Text(), 0
    for gap, piece in pieces:
        if used and used + len(gap) + piece.cell_len > width:
            packed.append(f"\n{_INDENT}")
            used = len(_INDENT)
        elif used:
            packed.append(gap)
            used += len(gap)
        packed.append_text(piece)
        used += piece.cell_len
    return packed


def _text(cell: RenderableType) -> Text:
    """A cell in one line."""
    text = cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))
    return Text(" ").join(part for part in text.split("\n"))


def _need(column: Column) -> Measurement:
    """Characters of the longest word, and of the longest cell."""
    if column.width is not None:
        return Measurement(column.width, column.width)
    found = [_measured(cell) for cell in (column.header, *column.cells)]
    longest = max(each.maximum for each in found)
    return Measurement(longest if column.no_wrap else max(m.minimum for m in found), longest)


def _measured(what: RenderableType) -> Measurement:
    console = Console(width=MAX_LINE)
    return Measurement.get(console, console.options, what)
