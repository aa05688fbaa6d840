"""How many calls of dangad's own code an echo takes in the parent, and in how many modules.

``python -m tests.benchmarks.calls`` counts, with one job at a time and with prefetched jobs;
``-v`` lists the calls in their order. The parent's parts are the real ones; the client's transport
and the worker's pipe are in memory.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import dangad
from dangad.wire import boxes
from tests.echopath import EchoPath

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ROOT = os.path.dirname(dangad.__file__) + os.sep


def calls_of(act: Callable[[], object]) -> list[tuple[str, str]]:
    """The calls of dangad's own code that `act` makes: module and function, in order."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(ROOT) and not packs_a_request(frame):
            name = path.removeprefix(ROOT).removesuffix(".py").replace(os.sep, ".")
            calls.append((name, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def packs_a_request(frame: FrameType) -> bool:
    """Whether it is the client, or the worker, that packs what it sends."""
    caller = frame.f_back
    return (
        frame.f_code is boxes.pair.__code__
        and caller is not None
        and not caller.f_code.co_filename.startswith(ROOT)
    )


def main() -> None:
    """Print what was counted."""
    path = EchoPath()
    path.echo(1)
    serial = calls_of(lambda: path.echo(2))
    path = EchoPath()
    path.fill(60, 30)
    prefetched = calls_of(path.burst)
    for name, calls in (("one at a time", serial), ("prefetched", prefetched)):
        modules = {module for module, _ in calls}
        print(f"{name}: {len(calls)} calls in {len(modules)} modules")
        if "-v" in sys.argv:
            for module, function in calls:
                print(f"    {module:24} {function}")
        else:
            for module, count in Counter(module for module, _ in calls).most_common():
                print(f"    {count:3} {module}")


if __name__ == "__main__":
    main()
