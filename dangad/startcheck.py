"""The program behind ``dangad check``: all that a start does before the server is made.

Run as ``python -m dangad.startcheck FILE``. It prints a document, an object in JSON that says what
would be served. If the server would not start, it says why on stderr, and exits with status 1.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dangad.host.startfailure import NotStarted
from dangad.options.commandline import Options
from dangad.options.configuration import values_of
from dangad.tap import prove
from dangad.text import printable


def check(path: str) -> dict[str, Any]:
    """What a server would serve that is started with the file at `path`.

    :raises NotStarted: it would not start; the text is one line.
    :raises SystemExit: the file is not valid; the text is one line for twistd.
    """
    options = Options()
    options.parseOptions([f"--config={path}"])
    catalogue = json.loads(prove(options, None, None, announce=_say_nothing).catalogue)
    values = values_of(options)
    return {
        "file": options.file.path,
        "listen": values["listen"],
        "control": values["control"],
        "workers": {
            "min": values["min-workers"],
            "max": values["max-workers"],
            "spare": values["spare-workers"],
            "start": values["start"],
        },
        "jobs": values["jobs"],
        "commands": [each["name"] for each in catalogue["commands"]],
    }


def _say_nothing(_: str) -> None:
    """Announce nothing: the standard output is for the document alone."""


def main() -> None:
    """Check the file that the command line names; print the document, or exit with status 1."""
    try:
        document = check(sys.argv[1])
    except (NotStarted, SystemExit) as error:
        text = str(error).removeprefix("twistd dangad: ")
        sys.exit(f"dangad: {printable(text)}")
    print(json.dumps(document))  # noqa: T201 - for `dangad check`


if __name__ == "__main__":
    main()
