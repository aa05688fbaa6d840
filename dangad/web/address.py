"""The address of a view: which view it is, and the filter, the order and the part of a list.

Everything that a list shows is in its address, so that a view can be sent to a colleague.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE_SIZE = 100
"""Rows of a list that are shown at a time."""
MAX_PAGE = 101
"""The last part of a list that can be asked for: operators may pass over ten thousand entries."""
MAX_WORD = 200
"""Characters of the longest value of a filter."""
LIVE_STATES = ("queued", "running")
"""States of jobs that have not ended."""
ENDED_STATES = ("done", "failed", "cancelled", "timed out", "lost")
"""States of jobs that have ended."""
ENDED = "ended"
"""Stands for all states of jobs that have ended."""
LIVE_SORTS = ("age", "wait", "runtime", "priority", "command", "client")
"""The orders of a list of jobs that wait or run; with ``-`` before one, the other way round."""
ENDED_SORTS = ("ended", "wait", "runtime", "state", "command", "client", "error")
"""The orders of a list of jobs that have ended."""
FILTERS = ("state", "command", "client", "older_than", "outcome")
"""The filters of a list of jobs."""

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|)", re.ASCII)
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


class BadAddress(ValueError):
    """The address is not valid; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a path, and the values of its query that are known."""

    path: tuple[str, ...] = ()
    """The parts of the path, below the prefix."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The filters, as a person wrote them."""
    sort: str = ""
    """The order of a list; empty for the usual one."""
    page: int = 1
    """Which part of a list is shown, from 1."""

    def link(self, root: str, **changes: Any) -> str:
        """The URL of this view, with some of its parts changed.

        :param root: the path before all views.
        """
        changed = replace(self, **changes)
        pairs = [(name, changed.words[name]) for name in FILTERS if changed.words.get(name)]
        if changed.sort:
            pairs.append(("sort", changed.sort))
        if changed.page > 1:
            pairs.append(("page", str(changed.page)))
        path = "/".join(quote(part, safe="") for part in changed.path)
        return f"{root}/{path}{'?' if pairs else ''}{urlencode(pairs)}"

    @property
    def ended(self) -> bool:
        """Whether the list is of jobs that have ended."""
        return self.words.get("state") in (ENDED, *ENDED_STATES)

    @property
    def order(self) -> str | None:
        """The order of the list, if this list can have it."""
        orders = ENDED_SORTS if self.ended else LIVE_SORTS
        return self.sort if self.sort.removeprefix("-") in orders else None

    def filter(self) -> dict[str, Any]:
        """The filter for ``IOperations``.

        :raises BadAddress: a value is not valid.
        """
        found: dict[str, Any] = {
            name: self.words[name]
            for name in ("command", "client", "outcome")
            if self.words.get(name)
        }
        state = self.words.get("state")
        if state in (*LIVE_STATES, *ENDED_STATES):
            found["state"] = state
        elif state and state != ENDED:
            allowed = ", ".join((*LIVE_STATES, ENDED, *ENDED_STATES))
            raise BadAddress(f"state={state} is none of {allowed}")
        if self.words.get("older_than"):
            found["older_than"] = read_time(self.words["older_than"])
        if "outcome" in found and not self.ended:
            raise BadAddress("outcome= is for jobs that have ended: choose such a state, too")
        return found


def read_address(path: Sequence[str], query: Mapping[bytes, Sequence[bytes]]) -> Address:
    """The address of a request.

    :param path: the parts of the path, below the prefix.
    :param query: the values of each name, as they came.
    :raises BadAddress: the address is not valid.
    """
    words = {name: _text(query, name) for name in FILTERS}
    sort = _text(query, "sort")
    orders = dict.fromkeys((*LIVE_SORTS, *ENDED_SORTS))
    if sort and sort.removeprefix("-") not in orders:
        raise BadAddress(f"sort={sort} is none of {', '.join(orders)}, with or without a - before")
    page = _text(query, "page") or "1"
    if not (page.isascii() and page.isdigit() and 1 <= int(page) <= MAX_PAGE):
        raise BadAddress(f"page={page} is not a whole number from 1 to {MAX_PAGE}")
    return Address(tuple(path), {n: w for n, w in words.items() if w}, sort, int(page))


def read_time(text: str, name: str = "older_than") -> float:
    """Seconds that a person wrote: ``90``, ``5m``, ``1.5h``.

    :param name: what the time is for, for the text of the error.
    :raises BadAddress: the text is no time.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise BadAddress(f"{name}={text} is no time like 90, 5m or 1.5h")
    return float(found[1]) * _UNITS[found[2]]


def _text(query: Mapping[bytes, Sequence[bytes]], name: str) -> str:
    """The last value of that name, without spaces around it."""
    value = [b"", *query.get(name.encode(), [])][-1].decode("utf-8", "replace").strip()
    if len(value) > MAX_WORD:
        raise BadAddress(f"{name}= is longer than {MAX_WORD} characters")
    return value
