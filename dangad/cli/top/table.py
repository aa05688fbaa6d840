"""The table of entries. It stays where the operator is, whatever comes and goes around there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from dangad.cli.top.views import PADDING, View, cells, fit, head_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class EntriesTable(DataTable[Text]):
    """A table whose rows are changed in place; its cursor follows the chosen entry."""

    def __init__(self, **more: Any) -> None:
        super().__init__(
            cursor_type="row", cell_padding=PADDING // 2, show_row_labels=False, **more
        )
        #: The entries of the rows.
        self._entries: list[dict[str, Any]] = []
        #: The view and the headers of the columns.
        self._shape: tuple[object, ...] = ()
        #: The key of the entries by which one is told from all others.
        self._identity = ""

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The entry under the cursor; None if there is none."""
        row = self.cursor_row
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def fill(self, view: View, sort: str, entries: Sequence[dict[str, Any]], width: int) -> None:
        """Show these entries.

        :param sort: the sort order that the headers show.
        :param width: the columns of the terminal in which to fit them.
        """
        chosen = self.chosen
        columns = fit(view, width)
        rows = [cells(entry, columns) for entry in entries]  # first: it may raise
        shape = (view.title, sort, *((column.head, size) for column, size in columns))
        if shape != self._shape:
            if self._shape[:1] != (view.title,):
                chosen = None  # an entry of another view
            self.clear(columns=True)
            for column, size in columns:
                self.add_column(head_of(column, sort), width=size)
            self._shape, self._identity = shape, view.identity
        self._entries = list(entries)
        self._set_rows(rows)
        self._follow(chosen)

    def _set_rows(self, rows: list[list[Text]]) -> None:
        while self.row_count > len(rows):
            self.remove_row(self.coordinate_to_cell_key(Coordinate(self.row_count - 1, 0)).row_key)
        for number, row in enumerate(rows):
            if number >= self.row_count:
                self.add_row(*row)
                continue
            for place, (old, new) in enumerate(zip(self.get_row_at(number), row, strict=True)):
                if old != new or old.style != new.style:
                    self.update_cell_at(Coordinate(number, place), new)

    def _follow(self, chosen: dict[str, Any] | None) -> None:
        """Have the cursor on the chosen entry, if it is still there."""
        if chosen is None:
            return
        name = chosen[self._identity]
        for number, entry in enumerate(self._entries):
            if entry[self._identity] == name:
                if number != self.cursor_row:
                    self.move_cursor(row=number, animate=False)
                return
