"""``dangad check``: checks a configuration file by all that a start does before the server is made.

This takes what only the server imports, and job code. So it runs in a process of its own, by
``python -m dangad.startcheck``, which prints a document.
"""

from __future__ import annotations

import json
import subprocess
import sys

import click

from dangad.cli.documents import show_checked
from dangad.cli.options import help_option, json_option
from dangad.cli.outcome import FAILED, Failed
from dangad.cli.streams import encode, say, write

NOT_VALID = 1
"""The exit status of a check that has said what is wrong."""
PATIENCE = 3.0
"""Seconds after which a check says on a terminal what takes so long."""


@click.command(
    add_help_option=False,
    params=[
        click.Argument(["file"], metavar="FILE", type=click.Path()),
        json_option("print one line of JSON"),
        help_option(),
    ],
)
def check(file: str, as_json: bool) -> None:
    """Check a configuration file of the server.

    Does what `twistd dangad --config FILE` does before the server is made: it reads the file,
    and imports the job modules in a worker process. No endpoint is opened, so a server may run.
    """
    program = [sys.executable, "-P", "-m", "dangad.startcheck", file]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            if sys.stderr is not None and sys.stderr.isatty():
                say("checking the job modules: their import takes long")
            output, _ = process.communicate()
    if process.returncode:
        said = process.returncode == NOT_VALID
        raise Failed(FAILED, "" if said else f"the check ended with status {process.returncode}")
    document = json.loads(output)
    lines = [json.dumps(document)] if as_json else show_checked(document)
    write(encode("".join(f"{line}\n" for line in lines)))
