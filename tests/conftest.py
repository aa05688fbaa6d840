"""What all tests share under pytest: their order."""

import pytest
from _pytest.unittest import TestCaseFunction


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the test cases first, and the plain functions last.

    From the first plain function on, pytest-twisted keeps the reactor running in a greenlet of
    its own, and trial's asynchronous test cases, which run the reactor themselves, would end
    before they began.
    """
    items.sort(key=lambda item: not isinstance(item, TestCaseFunction))
