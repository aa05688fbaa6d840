"""A job type in a module that is slow to import, and holds much memory if it is told to."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any

from twisted.protocols import amp

import dangad

with contextlib.suppress(ImportError):
    importlib.import_module("numpy")  # which takes time

MEMORY = "DANGAD_BENCH_MODEL"
"""The environment variable with the bytes of the model."""
_model = b"x" * int(os.environ.get(MEMORY, "0"))


class Read(amp.Command):
    """Read all of the model."""

    response = [(b"size", amp.Integer())]


class ReadAlone(Read):
    """Read all of the model, in a worker of its own."""


@dangad.job(Read)
@dangad.job(ReadAlone, isolate=True)
def read() -> dict[str, Any]:
    """Read it."""
    return {"size": _model.count(b"x")}
