"""Partial results and files larger than any box may be, through a real server to a client."""

import contextlib
import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

import dangad
from dangad.client.streams import MAX_UNREAD
from dangad.examples import BadRange, Echo, Missing, ReadFile, Sleep
from dangad.host.memory import memory_of
from tests.oddjobs import Careful, Misreport, Odd, Parts
from tests.realserver import RealServer, alive, shared_server, until

SIZE = 2 * 10**8
FLAT = 32 * 2**20
"""Bytes by which memory may grow, whatever the size of the file."""
DIGEST = "d162f6594b643795442d4c7bba3a1711962b9e63717625d9f1f9696df315c86b"
"""The SHA-256 of so many zeros."""
FAST = 15.0
"""Seconds in which the file must have come."""

shared = shared_server(
    *("dangad.examples", "tests.oddjobs"),
    worker={"environment": {**os.environ, "DANGAD_EXAMPLES_ROOT": "/"}},
    min_workers=2,
    drain=1.0,
)


def peak(pid: int | str) -> int:
    """The most memory, in bytes, that the process has had."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = [line for line in file if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def sparse(path: Path, size: int = SIZE) -> str:
    """Make a file of zeros that takes no place on the disk."""
    path.touch()
    os.truncate(path, size)
    return str(path)


async def test_large_file(server: RealServer, tmp_path: Path) -> None:
    """All of it comes, soon, and neither server nor client nor worker holds much of it."""
    path = sparse(tmp_path / "big")
    client = await server.client()
    await client.run(Sleep, seconds=0.0)
    pids: list[int | str] = ["self", *server.pids()]
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("5")  # forget the peak so far
    before = [peak(pid) for pid in pids]
    digest = hashlib.sha256()
    reports: list[tuple[int, int]] = []
    begun = time.monotonic()
    stream = client.stream(
        ReadFile, path=path, progress=lambda done, total, _: reports.append((done, total))
    )
    size = 0
    async for chunk in stream:
        digest.update(chunk)
        size += len(chunk)
    answer = await stream.result()
    took = time.monotonic() - begun
    grown = [peak(pid) - at_first for pid, at_first in zip(pids, before, strict=True)]
    assert answer == {"data": b"", "size": SIZE}
    assert (size, digest.hexdigest(), reports[-1]) == (SIZE, DIGEST, (SIZE, SIZE))
    assert max(grown) < FLAT, dict(zip(pids, grown, strict=True))
    assert took < FAST


async def test_large_values(server: RealServer) -> None:
    """60 MB there and back through stock AMP, byte for byte."""
    client = await server.connect()
    data = random.Random(60).randbytes(6 * 10**7)
    assert (await client.callRemote(Echo, data=data))["data"] == data


async def test_what_is_read(server: RealServer, tmp_path: Path) -> None:
    """A range comes as exactly its bytes; without chunks the bound of one answer holds."""
    data = os.urandom(1_000_003)
    (tmp_path / "random").write_bytes(data)
    big = sparse(tmp_path / "big")
    client = await server.client()
    for name, offset, length, expected in (
        ("random", None, None, data),
        ("random", 17, 600_000, data[17:600_017]),
        ("random", 2_000_000, None, b""),
        ("big", SIZE - 5, 100, bytes(5)),
    ):
        path = str(tmp_path / name)
        stream = client.stream(ReadFile, path=path, offset=offset, length=length)
        assert b"".join([chunk async for chunk in stream]) == expected
        assert (await stream.result())["data"] == b""
        plain = await client.run(ReadFile, path=path, offset=offset, length=length)
        assert plain["data"] == expected
    with pytest.raises(BadRange):
        await client.run(ReadFile, path=big)
    with pytest.raises(Missing):
        await anext(client.stream(ReadFile, path=str(tmp_path / "none")))


async def test_slow_reader(server: RealServer, tmp_path: Path) -> None:
    """A slow reader makes the job wait, others go on, and afterwards it gets all."""
    path = sparse(tmp_path / "big", 30 * 2**20)
    slow, other = await server.client(), await server.client()
    stream = slow.stream(ReadFile, path=path)
    size = len(await anext(stream))
    await until(server.paused)
    assert stream._parts._size < 2 * MAX_UNREAD
    for _ in range(20):
        assert (await other.run(Odd, what="nothing"))["pid"]
    await until(server.paused)  # it may have been for a moment only, before all was full
    async for chunk in stream:
        size += len(chunk)
    assert size == 30 * 2**20
    assert not server.paused()
    assert (await slow.run(ReadFile, path=path, length=1))["data"] == b"\0"


@pytest.mark.parametrize("how", ["cancel", "drop", "close", "deadline"])
async def test_leaving(server: RealServer, tmp_path: Path, how: str) -> None:
    """A stream that is left, while its job waits for its reader, has the job cancelled.

    It is left if it is cancelled, only forgotten, its client closed, or its time is up.
    """
    client, other = await server.client(), await server.client()
    await client.describe()  # a worker is ready
    path, deadline = sparse(tmp_path / "big"), 0.5 if how == "deadline" else None
    stream: Any = client.stream(ReadFile, path=path, deadline=deadline)
    await anext(stream)
    await until(server.paused)
    [pid] = server.paused()
    match how:
        case "cancel":
            stream.cancel()
            await ends_with(stream, CancelledError)
        case "drop":
            del stream
        case "close":
            await client.close()
            await ends_with(stream, dangad.Disconnected)
        case "deadline":
            await until(lambda: server.service.dispatcher.running == 0)
            await ends_with(stream, dangad.DeadlinePassed)
    await until(lambda: not alive(pid))
    assert (await other.run(Odd, what="nothing"))["pid"]
    await until(lambda: server.service.dispatcher.running == 0)


async def ends_with(stream: Any, error: type[Exception]) -> None:
    """What came before may be read, and then the error is raised."""
    with pytest.raises(error):
        async for _ in stream:
            pass


async def test_many_that_nobody_reads(server: RealServer) -> None:
    """However many streams are not read, a job of somebody else need not wait for them all.

    Nothing piles up meanwhile.
    """
    other = await server.client()
    await other.run(Sleep, seconds=0.0)
    before = memory_of(os.getpid()).resident
    readers = [await server.client() for _ in range(12)]
    streams = [reader.stream(Parts, count=10**6, size=100_000) for reader in readers]
    await until(lambda: len(server.paused()) == 2)
    assert server.service.dispatcher.waiting == 10
    for _ in range(20):
        await other.run(Sleep, seconds=0.02)
    assert server.service.dispatcher.waiting >= 8
    assert memory_of(os.getpid()).resident - before < 2 * FLAT
    for stream in streams:
        stream.cancel()


async def test_generator(server: RealServer) -> None:
    """What a job function yields is streamed, and what it returns is the result.

    Reports of its progress are few, in order, and the last is the job's last.
    """
    client = await server.client()
    told: list[int] = []
    stream = client.stream(Parts, count=3000, size=10, progress=lambda done, *_: told.append(done))
    chunks = [chunk async for chunk in stream]
    assert chunks == [bytes([number % 256]) * 10 for number in range(3000)]
    assert await stream.result() == {"sent": 3000}
    assert (told, told[-1]) == (sorted(told), 3000)
    assert len(told) < 500


async def test_no_chunks(server: RealServer) -> None:
    """Who does not ask for chunks gets the result alone; a job may send none."""
    client = await server.client()
    told: list[int] = []
    answer = await client.run(Parts, count=3, size=10, progress=lambda done, *_: told.append(done))
    assert (answer, told[-1]) == ({"sent": 3}, 3)
    stream = client.stream(Odd, what="nothing")
    assert [chunk async for chunk in stream] == []
    assert (await stream.result())["pid"]


async def test_stopped_while_sending(server: RealServer, tmp_path: Path) -> None:
    """A job that waits for a slow reader when it is cancelled may clean up."""
    client, mark = await server.client(), tmp_path / "mark"
    stream = client.stream(Careful, mark=str(mark))
    await anext(stream)
    await until(server.paused)
    await client.close()
    await until(mark.exists)
    assert mark.read_text() == "JobCancelled"


async def test_misreports(server: RealServer) -> None:
    """A message that is no UTF-8 is mended; parts of wrong types and sizes are the job's error."""
    client = await server.client()
    told: list[tuple[int, int, str]] = []
    for how, error, text in (
        ("number", dangad.JobFailed, "TypeError"),
        ("large", dangad.TooLarge, "a chunk of 70000000 bytes"),
        ("text", dangad.JobFailed, "TypeError: a chunk is bytes, not str"),
    ):
        with pytest.raises(error, match=text):
            await client.stream(Misreport, how=how, progress=lambda *_: None).result()
    answer = await client.run(Misreport, how="surrogate", progress=lambda *news: told.append(news))
    assert answer["pid"] in server.pids()
    assert told == [(1, 2, "caf?")]
