"""``dangad dev``: a server for the job files of a developer, in the foreground.

The words are read here and in :mod:`dangad.cli.jobfiles`; :mod:`dangad.cli.devsession` does the
rest.
"""

from __future__ import annotations

import click

from dangad.cli.options import help_option
from dangad.cli.outcome import WrongUsage

EXAMPLE = """\b
A file of job types, for example jobs.py:
  from twisted.protocols import amp
  from dangad import job
\b
  class Add(amp.Command):
      arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
      response = [(b"sum", amp.Integer())]
\b
  @job(Add)
  def add(a, b):
      return {"sum": a + b}
"""
"""The last paragraph of the help: what can be served."""


@click.command(
    "dev",
    add_help_option=False,
    params=[
        click.Argument(["words"], metavar="FILE...", nargs=-1, type=click.Path()),
        click.Option(
            ["--worker-path", "paths"],
            metavar="DIRECTORY",
            multiple=True,
            type=click.Path(),
            help="a directory where modules are looked for first, and files are watched; "
            "repeatable",
        ),
        click.Option(
            ["--listen"],
            metavar="ENDPOINT",
            help="where clients connect: the path of a UNIX socket, or "
            "tcp:PORT:interface=127.0.0.1 [default: a socket in a directory that only you can "
            "enter]",
        ),
        click.Option(
            ["--control"],
            metavar="ENDPOINT",
            help="where operators connect, likewise [default: likewise]",
        ),
        help_option(),
    ],
    epilog=EXAMPLE,
)
def dev(
    words: tuple[str, ...], paths: tuple[str, ...], listen: str | None, control: str | None
) -> None:
    """Serve job files while you write them.

    FILE is a Python file with job types, a directory that is a package, or the dotted name of a
    module. A server runs in the
    foreground until Ctrl-C. Its workers get the new code when a Python file beside the job files
    changes. Each job type is shown with a line that calls it; then jobs are shown as they come,
    with what they print and their tracebacks.

    Files are looked at every half second. With the extra `dangad[dev]`, changes are noticed at
    once.
    """
    if not words:
        raise WrongUsage("which FILE has the job types? as in `dangad dev jobs.py`")
    from dangad.cli.jobfiles import find_jobs

    code = find_jobs(words, paths)
    from twisted.internet import reactor

    from dangad.cli.devsession import Session

    Session(reactor, code, listen, control).run()
