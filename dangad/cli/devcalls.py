"""What ``dangad dev`` shows of a new server: where it is, and a call of each job type.

Used by :mod:`dangad.cli.devsession`; :mod:`dangad.wire.callwords` makes the calls.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from dangad.cli.devserver import LOOPBACK, own_program
from dangad.cli.options import DOORS
from dangad.wire.callwords import example_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dangad.cli.devlines import Screen

MOST_CALLS = 20
"""The most job types that are shown at once with a line that calls them."""
_INDENT = "          "


class CallLines:
    """Shows how to call the job types of a server, each once."""

    def __init__(self, screen: Screen) -> None:
        """Begin with nothing shown."""
        self._screen = screen
        # The working directory may be gone later.
        self._program = own_program()
        #: The default addresses, by the option of the command that has each.
        self._defaults = {name: os.path.abspath(door) for name, door in DOORS.items()}
        #: The lines that were shown, by the names of the commands.
        self._shown: dict[str, str] = {}

    def forget(self) -> None:
        """Begin anew, with another server."""
        self._shown.clear()

    def show(self, catalogue: Mapping[str, Any], addresses: Mapping[str, str], page: int) -> None:
        """Show the job types that are new, or have other arguments than before.

        :param catalogue: the job types.
        :param addresses: where the server is, by the option of the command that says so.
        :param page: the port of the page.
        """
        address = addresses["connect"]
        connect = "" if address == self._defaults["connect"] else address
        lines = {
            each["name"]: example_call(each, self._program, connect)
            for each in catalogue["commands"]
        }
        new = [line for name, line in lines.items() if self._shown.get(name) != line]
        is_first = not self._shown
        for name in self._shown.keys() - lines.keys():
            self._screen.say(f"{name} is no longer served")
        self._shown = lines
        if is_first:
            self._screen.say("to see and call jobs: ", (f"http://{LOOPBACK}:{page}/", "own"))
        if new:
            self._screen.say("from another terminal, for example:" if is_first else "new:")
        for line in new[:MOST_CALLS]:
            self._screen.write(_INDENT, (line, "own"))
        if new[MOST_CALLS:]:
            self._screen.say(f"and {len(new[MOST_CALLS:])} more: `dangad commands` lists them")
        if is_first:
            self._show_variables(addresses)

    def _show_variables(self, addresses: Mapping[str, str]) -> None:
        """Show how the other subcommands find the server, unless they do so by default."""
        variables = [
            f"DANGAD_{name.upper()}={shlex.quote(addresses[name])}"
            for name, default in self._defaults.items()
            if addresses[name] != default
        ]
        if variables:
            self._screen.say("for `dangad status` and the others there:")
            self._screen.write(_INDENT, f"export {' '.join(variables)}")
