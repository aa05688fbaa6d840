"""The orders for workers that templates have not carried out yet.

Kept by :mod:`dangad.pool.template`. Each order has a number; the report about it has the same
number.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dangad.pool.templateprocess import Unwanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dangad.pool.forkedprocess import ForkedProcess
    from dangad.pool.templateprocess import TemplateProcess

_GONE = (errno.EPIPE, errno.ECONNRESET)
"""Errors of a socket whose other end is closed."""


@dataclass
class Order:
    """An order for a worker."""

    process: ForkedProcess
    descriptors: Sequence[int]
    template: TemplateProcess
    """The template that has the order."""


class ForkOrders:
    """The open orders, and the orders whose forks nobody wants any more."""

    def __init__(self) -> None:
        #: The open orders, by number.
        self._open: dict[int, Order] = {}
        #: Orders whose forks are to be killed at once, each with the template that has the order.
        self._unwanted: dict[int, TemplateProcess] = {}
        #: The number of the last order.
        self._last = 0

    def __bool__(self) -> bool:
        """Whether there may be forks that were not reported yet."""
        return bool(self._open or self._unwanted)

    @property
    def are_open(self) -> bool:
        """Whether any order is open."""
        return bool(self._open)

    def has(self, template: TemplateProcess) -> bool:
        """Whether `template` has an open order."""
        return any(order.template is template for order in self._open.values())

    def send(
        self, template: TemplateProcess, process: ForkedProcess, descriptors: Sequence[int]
    ) -> None:
        """Order a worker.

        :raises OSError: the order cannot be sent.
        """
        self._last += 1
        order = Order(process, descriptors, template)
        _give(template, self._last, order)
        self._open[self._last] = order

    def send_again(self, gone: TemplateProcess, template: TemplateProcess) -> None:
        """Give `template` the open orders of a template that is `gone`.

        :raises OSError: an order cannot be sent; this order and the later ones stay as they were.
        """
        for number, order in self._open.items():
            if order.template is gone:
                _give(template, number, order)

    def forget(self, process: ForkedProcess) -> None:
        """Kill the fork that was ordered for `process`, as soon as it is reported."""
        for number, order in self._open.items():
            if order.process is process:
                del self._open[number]
                self._unwanted[number] = order.template
                return

    def forked(self, number: int, pid: int) -> Order | None:
        """Take out an order that was carried out or has failed; None if nobody waits for it.

        :param pid: the id of the fork; 0 if there is none.
        """
        if self._unwanted.pop(number, None) is not None:
            if pid:
                Unwanted(pid)
            return None
        return self._open.pop(number, None)

    def gone(self, template: TemplateProcess) -> None:
        """Expect no report from `template` any more."""
        for number in [n for n, told in self._unwanted.items() if told is template]:
            del self._unwanted[number]

    def fail(self, reason: str, told: TemplateProcess | None = None) -> None:
        """Fail all open orders, or only the orders of the template `told`."""
        failed = {n: o for n, o in self._open.items() if told is None or o.template is told}
        for number, order in failed.items():
            del self._open[number]
            order.process.not_forked(reason)


def _give(template: TemplateProcess, number: int, order: Order) -> None:
    """Give `order` to `template`. If the template has just died, its end is reported later.

    :raises OSError: the order cannot be sent.
    """
    try:
        template.order(number, order.descriptors)
    except OSError as error:
        if not template.closed and error.errno not in _GONE:
            raise
    order.template = template
