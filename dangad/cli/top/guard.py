"""What happens when an answer cannot be shown: the server may be of another version, or odd."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from dangad.cli.top.app import Top


@contextlib.contextmanager
def guarded(tell: Callable[[str], object]) -> Iterator[None]:
    """A context in which an answer is shown; `tell` gets the reason if that cannot be done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an answer can be odd in any way
        tell(f"the server's answer cannot be shown by this dangad: {error!r:.200}")


def guarded_action(action: Callable[[Any], Awaitable[None]]) -> Callable[[Top], Awaitable[None]]:
    """An action that shows answers; the operator is told if that cannot be done."""

    @functools.wraps(action)
    async def act(top: Top) -> None:
        with guarded(top.complain):
            await action(top)

    return act
