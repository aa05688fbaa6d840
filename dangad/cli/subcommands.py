"""How a subcommand for operators is made: a function that asks the server, and one that shows.

Used by :mod:`dangad.cli.operators` and :mod:`dangad.cli.jobs`. Each subcommand is a function that
uses a connected client; its docstring is the help. Its result is a document. With ``--json`` it is
written unchanged; otherwise another function makes lines of it for people.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import click

from dangad.cli.options import endpoint_option, help_option, json_option
from dangad.cli.outcome import FAILED, Failed
from dangad.cli.running import with_client
from dangad.cli.streams import encode, say, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dangad.client import Client

    Ask = Callable[..., Awaitable[Any]]
    Show = Callable[[Any], Iterable[str]]
    Hint = Callable[[Any], str]


def subcommand(
    show: Show,
    *parameters: click.Parameter,
    check: Callable[..., None] | None = None,
    hint: Hint | None = None,
    failed: Callable[[Any], bool] | None = None,
) -> Callable[[Ask], click.Command]:
    """A decorator that makes a subcommand of a function, which asks a client for a document.

    :param show: turns the document into lines for people.
    :param parameters: the subcommand's own parameters, with which the function is called.
    :param check: called with the parameters before there is a connection; raises WrongUsage if they
        are not valid.
    :param hint: what to tell people besides, on the standard error; empty for nothing.
    :param failed: whether the document says that nothing came of it, for the exit status.
    """
    shared = (json_option("print one line of JSON"), endpoint_option("control"), help_option())

    def decorate(ask: Ask) -> click.Command:
        @click.command(ask.__name__, add_help_option=False, params=[*parameters, *shared])
        @functools.wraps(ask)
        def perform(control: str | None, as_json: bool, **arguments: Any) -> None:
            if check is not None:
                check(**arguments)
            documents: list[Any] = []

            async def use(client: Client) -> bytes:
                document = await ask(client, **arguments)
                documents.append(document)
                return encode(f"{json.dumps(document)}\n" if as_json else shown(document, show))

            write(with_client("control", control, use))
            [document] = documents
            if hint is not None and not as_json and (text := hint(document)):
                say(text)
            if failed is not None and failed(document):
                raise Failed(FAILED)

        return perform

    return decorate


def shown(document: Any, show: Show) -> str:
    """The document as text for people.

    :raises Failed: the document is of another version; the text names the missing key.
    """
    try:
        return "".join(f"{line}\n" for line in show(document))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"the server's answer cannot be shown by this dangad, --json may do: {error}"
        raise Failed(FAILED, text) from None


async def document_of(server: Client, name: str, /, **arguments: Any) -> Any:
    """The document that answers the command of this name; arguments that are None are left out."""
    from dangad.wire import commands

    given = {key: value for key, value in arguments.items() if value is not None}
    answer = await server.run(getattr(commands, name), given)
    return json.loads(answer["document"])
