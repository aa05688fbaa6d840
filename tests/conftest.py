"""What all tests share under pytest: their order, and a folder for what is made once."""

import inspect
import shutil

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from _pytest.unittest import TestCaseFunction

from tests import reader


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the test cases first, and the plain functions last; those that wait may be coroutines.

    From the first plain function on, pytest-twisted keeps the reactor running in a greenlet of
    its own, and trial's asynchronous test cases, which run the reactor themselves, would end
    before they began. Several processes keep to it only where each takes its tests in this order:
    ``--dist=loadscope --no-loadscope-reorder``, and not ``worksteal``.
    """
    items.sort(key=lambda item: not isinstance(item, TestCaseFunction))
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            pytest_twisted.ensureDeferred(item.function)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of :mod:`tests.reader`, in the one process that begins and ends the run."""
    if not hasattr(config, "workerinput"):
        folder = reader.share_folder()
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
