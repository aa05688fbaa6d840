"""A client of the pools that give out futures: concurrent.futures, loky, Dask, and Celery.

``python -m tests.benchmarks.drivers.futures POOL [ADDRESS]``. The first two are pools of this
process, which start their two workers here; of the others this is only the client.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from tests.benchmarks.drivers import check, payload, serve
from tests.benchmarks.work import WORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 2
PATIENCE = 60.0


class Pool(Protocol):
    """What all the pools can do."""

    def submit(self, work: str, data: bytes, amount: int) -> Callable[[], bytes]:
        """Begin a job; the function returned waits for its answer."""


class Executor:
    """A pool with the interface of :class:`concurrent.futures.Executor`."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def submit(self, work: str, data: bytes, amount: int) -> Callable[[], bytes]:
        """See :meth:`Pool.submit`."""
        result: Callable[[], bytes] = self._executor.submit(WORK[work], data, amount).result
        return result


class Dask:
    """A cluster's client; each job is a task of its own, although others may have been the same."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, work: str, data: bytes, amount: int) -> Callable[[], bytes]:
        """See :meth:`Pool.submit`."""
        future = self._client.submit(WORK[work], data, amount, pure=False)
        result: Callable[[], bytes] = future.result
        return result

    def burst(self, work: str, datas: list[bytes], amount: int) -> list[bytes]:
        """Many jobs at once, which is what Dask is good at."""
        futures = self._client.map(WORK[work], datas, [amount] * len(datas), pure=False)
        results: list[bytes] = self._client.gather(futures)
        return results


class Celery:
    """An app whose tasks take and give text, as JSON does."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def submit(self, work: str, data: bytes, amount: int) -> Callable[[], bytes]:
        """See :meth:`Pool.submit`."""
        sent = self._app.send_task(f"bench.{work}", (data.decode(), amount))
        return lambda: str(sent.get(timeout=PATIENCE)).encode()


class Calls:
    """The functions of the driver."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def serial(
        self, jobs: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """One job after the other: the seconds that each took."""
        latencies = []
        for number in range(jobs):
            data = payload(number, size)
            start = time.perf_counter()
            answer = self._pool.submit(work, data, amount)()
            latencies.append(time.perf_counter() - start)
            check(answer, data)
        return {"latencies": latencies}

    def windowed(
        self, jobs: int, window: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """At most so many jobs in flight: the seconds that all took.

        Futures are waited for in their order; Dask is given one burst after the other.
        """
        datas = [payload(number, size) for number in range(jobs)]
        start = time.perf_counter()
        if isinstance(self._pool, Dask):
            for first in range(0, jobs, window):
                burst = datas[first : first + window]
                check(self._pool.burst(work, burst, amount), burst)
        else:
            waiting: deque[tuple[Callable[[], bytes], bytes]] = deque()
            for data in datas:
                if len(waiting) == window:
                    answer, expected = waiting.popleft()
                    check(answer(), expected)
                waiting.append((self._pool.submit(work, data, amount), data))
            for answer, expected in waiting:
                check(answer(), expected)
        return {"seconds": time.perf_counter() - start}


@contextmanager
def process_pool(_address: str) -> Iterator[Pool]:
    """The standard library's pool."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as executor:
        yield Executor(executor)


@contextmanager
def loky(_address: str) -> Iterator[Pool]:
    """Joblib's pool."""
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as executor:
        yield Executor(executor)


@contextmanager
def dask(address: str) -> Iterator[Pool]:
    """The client of a Dask scheduler."""
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(WORKERS, timeout=PATIENCE)
        yield Dask(client)


@contextmanager
def celery(address: str) -> Iterator[Pool]:
    """The client of Celery's workers behind a Redis."""
    from tests.benchmarks.servers.celery_app import make_app

    yield Celery(make_app(address))


POOLS = {"process": process_pool, "loky": loky, "dask": dask, "celery": celery}

if __name__ == "__main__":
    with POOLS[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "") as chosen:
        calls = Calls(chosen)
        serve({"serial": calls.serial, "windowed": calls.windowed})
