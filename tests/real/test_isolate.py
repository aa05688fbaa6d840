"""Types whose worker is the job's alone, and types whose worker survives that they are stopped."""

import random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from dangad.client import Client
from dangad.errors import DeadlinePassed
from dangad.limits import PRELOADED, STARTS
from tests.isolatedjobs import Alone, Few, Plain, Wait
from tests.realserver import RealServer, until

JOBS = "tests.isolatedjobs"


async def perform(client: Client, *commands: type[Plain]) -> None:
    """Run the commands at once, and see who has run in whose process."""
    answers = await gatherResults([client.run(each) for each in commands])
    told = list(zip(commands, answers, strict=True))
    isolated = [answer["pid"] for command, answer in told if command is not Plain]
    assert len(set(isolated)) == len(isolated)
    for command, answer in told:
        if command is Plain:
            assert set(answer["before"]) <= {"plain"}
            assert answer["pid"] not in isolated
        else:
            assert answer["before"] == []


@pytest.mark.parametrize("start", STARTS)
async def test_isolated_one_after_the_other(own_server: RealServer, start: str) -> None:
    """Each waits for a worker that has done nothing, whatever is idle."""
    own_server.start(JOBS, worker={"start": start}, min_workers=0, max_workers=1)
    client = await own_server.client()
    for command in (Plain, Alone, Alone, Plain, Few):
        await perform(client, command)
        if command is Plain:
            await until(lambda: own_server.service.dispatcher.idle)


@pytest.mark.parametrize("workers", [1, 2])
async def test_isolated_among_others(own_server: RealServer, workers: int) -> None:
    """All kinds together, more than there are workers; and one while others always wait."""
    own_server.start(JOBS, worker={"start": PRELOADED}, max_workers=workers)
    client = await own_server.client()
    commands = [Plain] * 60 + [Alone] * 15 + [Few] * 15
    random.Random(1).shuffle(commands)
    await perform(client, *commands)
    done: list[Any] = []

    def ask(_: Any = None) -> Any:
        return client.run(Plain).addCallback(lambda _: done or ask())

    others = gatherResults([ask() for _ in range(20)])
    done.append(await client.run(Alone))
    assert done[0]["before"] == []
    await others


async def stopped(server: RealServer, client: Client, how: str, **options: Any) -> type[Exception]:
    """Begin a stoppable job, and stop it; what its client is told."""
    answer = client.run(Wait, how=how, **options)
    if not options:
        await until(lambda: server.service.dispatcher.running)
        answer.cancel()
    try:
        await answer
    except (CancelledError, DeadlinePassed) as error:
        return type(error)
    raise AssertionError("it was not stopped")


async def test_stoppable(own_server: RealServer) -> None:
    """The worker of a stopped job goes on if the job ends, however it does, and leaves nothing."""
    own_server.start(JOBS, max_workers=1)
    client = await own_server.client()
    worker = (await client.run(Plain))["pid"]
    for how in ("raise", "fail", "answer") * 3:
        assert await stopped(own_server, client, how) is CancelledError
        assert await stopped(own_server, client, how, deadline=0.05) is DeadlinePassed
        assert (await client.run(Plain))["pid"] == worker
    for how in ("swallow", "leave a process"):
        assert await stopped(own_server, client, how) is CancelledError
        before, worker = worker, (await client.run(Plain))["pid"]
        assert worker != before


async def test_stoppable_in_the_middle_of_a_box(own_server: RealServer) -> None:
    """What follows half of a box is never read as the other half."""
    own_server.start(JOBS, max_workers=1)
    client = await own_server.client()
    for _ in range(10):
        stream = client.stream(Wait, how="send")
        async for _part in stream:
            break
        stream.cancel()
        with pytest.raises(CancelledError):
            await stream.result()
        await client.run(Plain)
