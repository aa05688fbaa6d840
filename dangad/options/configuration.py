"""The options that are in effect, as values of a configuration file.

:mod:`dangad.tap` gives them to the server, which tells them to operators: see ``dangad config``.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from twisted.python import usage

from dangad.limits import LEAN, PRELOADED
from dangad.options.commandline import DEFAULT_ENDPOINTS, DEFAULT_JOBS, Options
from dangad.options.configfile import ConfigFile, Configuration, Kind, kinds_of

_AFTER_MEANING = re.compile(r"\.( |$)| \[default:")
"""What comes after the part of an option's help that says what it means."""
MOST_EXACT = 2**53
"""The number below which every whole number is a float, too."""


class _FileAlone(Options):
    """The options of a file alone, without the checks that need the command line as well."""

    def postOptions(self) -> None:
        """Check nothing."""


def configuration_of(options: Options) -> Configuration:
    """The configuration of a server that is started with these options."""
    values = values_of(options)
    meanings = {name: _AFTER_MEANING.split(options.docs[name])[0] for name in values}
    return Configuration(options.file, values, _values_alone(options.file), meanings)


def values_of(options: Options) -> dict[str, Any]:
    """The options as values of a file, in the order of :func:`.kinds_of`."""
    values = {name: options[name] for name in kinds_of(Options())}
    for name, kind in kinds_of(Options()).items():
        value = values[name]
        if kind is Kind.FLAG:
            values[name] = bool(value)
        elif isinstance(value, float) and value.is_integer() and value < MOST_EXACT:
            values[name] = int(value)
    values["listen"] = list(values["listen"] or DEFAULT_ENDPOINTS)
    values["jobs"] = list(values["jobs"] or DEFAULT_JOBS)
    values["worker-env"] = [f"{name}={value}" for name, value in values["worker-env"].items()]
    values["start"] = PRELOADED if values["preload"] else values["start"] or LEAN
    if values["worker-directory"] is not None:
        values["worker-directory"] = os.path.abspath(values["worker-directory"])
    if values["worker-umask"] is not None:
        values["worker-umask"] = f"{values['worker-umask']:03o}"
    return values


def _values_alone(file: ConfigFile) -> dict[str, Any]:
    """The options of a server that is started with the file, and an empty command line.

    Values in the file that are not valid, and are not in use either, count as left out.
    """
    alone = _FileAlone()
    for name in file.texts:
        with contextlib.suppress(usage.UsageError):
            usage.Options.parseOptions(alone, file.words(name))
    return values_of(alone)
