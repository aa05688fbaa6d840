"""A job module that starts a pool of processes, and shares memory, when it is imported."""

import multiprocessing
import os
from multiprocessing import shared_memory
from typing import Any

from twisted.protocols import amp

from dangad import job

_pool = multiprocessing.get_context("fork").Pool(1)
_memory: Any = shared_memory.SharedMemory(create=True, size=100)


class Pooled(amp.Command):
    """Work in the pool; says where, and what the memory is called."""

    response = [
        (b"pid", amp.Integer()),
        (b"worker", amp.Integer()),
        (b"memory", amp.Unicode()),
    ]


@job(Pooled)
def pooled() -> dict[str, Any]:
    """See the command."""
    return {"pid": _pool.apply(os.getpid), "worker": os.getpid(), "memory": _memory._name}
