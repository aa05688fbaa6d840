"""Servers for plain test functions; see :mod:`tests.realserver`."""

from collections.abc import AsyncIterator

from tests.realserver import RealServer, async_fixture


@async_fixture
async def server(shared: RealServer) -> AsyncIterator[RealServer]:
    """The server that the module's tests share, which has nothing to do when a test begins."""
    yield shared
    await shared.rest()


@async_fixture
async def own_server() -> AsyncIterator[RealServer]:
    """A server that is the test's to start, and is stopped at its end."""
    own = RealServer()
    yield own
    await own.stop()
