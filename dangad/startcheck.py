"""The program behind ``dangad check``: all that a start does before the server is made.

Run as ``python -m dangad.startcheck FILE``. It prints a document, an object in JSON that says what
would be served. If the server would not start, it says why on stderr, and exits with status 1.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import Any

from dangad.host.startfailure import NotStarted
from dangad.options.commandline import Options
from dangad.options.configuration import values_of
from dangad.tap import prove
from dangad.text import printable

MAX_SOCKET_PATH = 107
"""Bytes of the longest path of a UNIX socket, see unix(7)."""


def check(path: str) -> dict[str, Any]:
    """What a server would serve that is started with the file at `path`.

    :raises NotStarted: it would not start; the text is one line.
    :raises SystemExit: the file is not valid; the text is one line for twistd.
    """
    options = Options()
    options.parseOptions([f"--config={path}"])
    catalogue = json.loads(prove(options, None, None, announce=_say_nothing).catalogue)
    values = values_of(options)
    web = values["web"]
    for option in ("listen", "control", "web"):
        named = values[option] if option == "listen" else [values[option]]
        for endpoint in filter(None, named):
            _check_path(option, endpoint)
    return {
        "file": options.file.path,
        "listen": values["listen"],
        "control": values["control"],
        "web": None
        if web is None
        else {
            "endpoint": web,
            "prefix": values["web-prefix"],
            "actions": bool(values["web-actions"]),
        },
        "workers": {
            "min": values["min-workers"],
            "max": values["max-workers"],
            "spare": values["spare-workers"],
            "start": values["start"],
        },
        "jobs": values["jobs"],
        "commands": [each["name"] for each in catalogue["commands"]],
    }


def _blame(path: str, text: str) -> str:
    """The text of an error, which names the file and not the options of a command line.

    All that is wrong comes from the file, or from what it does not say.
    """
    if text.startswith(f"--config {path}: "):
        return text.removeprefix("--config ")
    if text.startswith(("--", "cannot listen on ")):
        return f"{path}: {text.removeprefix('--')}"
    return text


def _check_path(option: str, description: str) -> None:
    """Check that a UNIX socket can be made, as far as this is seen without making it.

    :raises NotStarted: it cannot be made; the text is that of a start.
    """
    from dangad.server.bindfailure import explain
    from dangad.server.endpoints import read_endpoint

    endpoint = read_endpoint(description)
    path = (endpoint.inner or endpoint).path
    if path is None:
        return
    wrong = _why_no_socket(path)
    if wrong is not None:
        said = explain(wrong, path, f"--{option}")
        raise NotStarted(f"cannot listen on {description}: {said}")


def _why_no_socket(path: str) -> Exception | None:
    """Why no socket can be made at `path`, as the system would say; None if it can be."""
    from dangad.server.unixport import InUse

    folder = os.path.dirname(path) or "."
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return OSError("AF_UNIX path too long")
    if not os.path.isdir(folder):
        number = errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
        return OSError(number, os.strerror(number))
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return OSError(errno.EACCES, os.strerror(errno.EACCES))
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return InUse("there is something else of that name")
    return None


def _say_nothing(_: str) -> None:
    """Announce nothing: ``dangad check`` tells what takes long."""


def main() -> None:
    """Check the file that the command line names; print the document, or exit with status 1."""
    path = sys.argv[1]
    try:
        document = check(path)
    except (NotStarted, SystemExit) as error:
        text = _blame(path, str(error).removeprefix("twistd dangad: "))
        sys.exit(f"dangad: {printable(text)}")
    print(json.dumps(document))  # noqa: T201 - for `dangad check`


if __name__ == "__main__":
    main()
