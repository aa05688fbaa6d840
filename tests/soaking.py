"""What the soaks have in common: their options, a folder of their own, and how they end."""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options of the soak that is the module `tests.soak_NAME`."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.soak_{name}", description=description)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, help="what chance begins with (any)")
    return parser


def run_soak(
    name: str,
    options: argparse.Namespace,
    soak: Callable[[float, int, str], Awaitable[bool]],
) -> Deferred[None]:
    """Run it, and end the program; what was written down stays in its folder if it was bad.

    :param soak: given seconds, seed and folder; whether all was well.
    """
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed

    async def run() -> None:
        folder = tempfile.mkdtemp(prefix=f"dangad-{name}-")
        print(f"seed {seed}, {options.seconds:g} s, in {folder}", flush=True)
        began = time.monotonic()
        good = await soak(options.seconds, seed, folder)
        print(f"seed {seed}: {'good' if good else 'BAD'} after {time.monotonic() - began:.0f} s")
        if good:
            shutil.rmtree(folder)
        raise SystemExit(not good)

    return Deferred.fromCoroutine(run())
