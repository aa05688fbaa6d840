"""The program of :mod:`tests.hostileclients`, run beside honest clients.

Used by :mod:`tests.historyload` and :mod:`tests.soak_latency`. What it does goes into no history:
it may cost nobody else anything.
"""

import json
import sys
import time
from collections import Counter
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

from tests.loadedserver import ROOT, LoadedServer


async def run_hostility(
    reactor: Any, server: LoadedServer, seed: str, seconds: float, *options: str
) -> Counter[str]:
    """Harm the server for so long; how often, by kind of deed.

    :raises AssertionError: the program failed.
    """
    out, err, status = await getProcessOutputAndValue(
        sys.executable,
        [
            *("-m", "tests.hostileclients"),
            *("--unix", server.socket, "--port", str(server.port)),
            *("--until", str(time.monotonic() + seconds), "--seed", seed, *options),
        ],
        env=server.environment,
        path=str(ROOT),
        reactor=reactor,
    )
    assert status == 0, f"hostile clients: {err.decode()}"
    assert not err, f"hostile clients: {err.decode()}"
    return Counter(json.loads(out))
