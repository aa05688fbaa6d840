"""What lies on top of the screen: a question, and a text that is read and closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from dangad.text import printable

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType


class Question(ModalScreen[bool]):
    """A question that is answered by y or n; True for yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question, and how to answer it."""
        with Vertical(classes="dialog"):
            yield Static(Text(printable(self._text)), id="question", markup=False)
            yield Static(Text("y  yes      n  no", "dim"), markup=False)

    def action_answer(self, yes: bool) -> None:
        """Close, with the answer."""
        self.dismiss(yes)


class Reading(ModalScreen[None]):
    """A text of many lines, which can be scrolled in both directions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "close", "Close"),
    ]

    def __init__(self, title: str, lines: list[str]) -> None:
        """Show printable lines.

        :param title: what they are.
        """
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        """The title, and the lines."""
        with Vertical(classes="reading"):
            yield Static(Text(printable(self._title), "bold"), id="title", markup=False)
            with VerticalScroll(id="scroll"):
                text = "\n".join(printable(line.expandtabs()) for line in self._lines)
                yield Static(Text(text, no_wrap=True), id="text", markup=False)
            yield Static(Text("arrows scroll, q closes", "dim"), markup=False)

    def on_mount(self) -> None:
        """Let the arrows scroll."""
        self.query_one("#scroll").focus()

    def action_close(self) -> None:
        """Close."""
        self.dismiss(None)
