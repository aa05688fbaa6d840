"""The subcommand ``dangad top``: what there must be for the screen, and how it begins and ends."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import click

from dangad.addresses import description_of
from dangad.cli.options import DOORS, endpoint_option, help_option
from dangad.cli.outcome import FAILED, Failed
from dangad.cli.running import why_not_connected, with_client

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.cli.top.app import Top
    from dangad.client import Client


@click.command(add_help_option=False, params=[endpoint_option("control"), help_option()])
def top(control: str | None) -> None:
    """Show the server on a full screen, live.

    Jobs, commands, failures and workers, with filters and sort orders; cancels jobs, pauses
    commands, shows stacks. The key ? explains the others. Needs the extra dangad[top].
    """
    if importlib.util.find_spec("textual") is None:
        raise Failed(FAILED, "top needs textual: install it by pip install 'dangad[top]'")
    streams = (sys.stdin, sys.stdout)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise Failed(FAILED, "top needs a terminal; status, workers and jobs write to files")
    import asyncio  # here, since all subcommands import this module

    from twisted.internet import asyncioreactor

    # textual needs asyncio, and the client a reactor: both get the same loop.
    asyncioreactor.install(asyncio.new_event_loop())
    with_client("control", control, lambda client: _run(client, control))


async def _run(client: Client, control: str | None) -> bytes:
    """Show the server that `client` is connected to, until the operator quits, or a signal comes.

    :raises Failed: the screen has failed.
    """
    import asyncio

    from twisted.internet import defer, reactor

    from dangad.cli.top.app import Top
    from dangad.cli.top.server import Server
    from dangad.client import connect
    from dangad.wire import commands

    await client.run(commands.Status)  # where clients connect, this says so before the screen
    clock: Any = reactor
    where = description_of(control or DOORS["control"])
    server = Server(
        clock,
        lambda: connect(clock, where),
        lambda error: why_not_connected(error, where)[0],
        client,
    )
    app = Top(server.ask)
    ended: Deferred[None] = defer.Deferred.fromFuture(asyncio.ensure_future(app.run_async()))
    trigger = clock.addSystemEventTrigger("before", "shutdown", _end, app, ended)
    try:
        await ended
    finally:
        clock.removeSystemEventTrigger(trigger)
        server.close()
    if app.return_code:
        raise Failed(app.return_code)
    return b""


def _end(app: Top, ended: Deferred[None]) -> Deferred[None]:
    """Give the terminal back before the reactor stops, because of a signal."""
    from twisted.internet import defer

    waiter: Deferred[None] = defer.Deferred()

    def tell(result: Any) -> Any:
        waiter.callback(None)
        return result

    ended.addBoth(tell)
    app.exit()
    return waiter
