"""A thousand job types, which all answer the data."""

from __future__ import annotations

from twisted.protocols import amp

from dangad import Blob, job

NAMES = tuple(f"Command{number:04}" for number in range(1000))


def _declare(name: str) -> type[amp.Command]:
    """A command of this name."""
    command: type[amp.Command] = type(
        name,
        (amp.Command,),
        {"arguments": [(b"data", Blob())], "response": [(b"data", Blob())]},
    )
    return command


def answer(data: bytes) -> dict[str, object]:
    """Answer the data."""
    return {"data": data}


for _name in NAMES:
    job(_declare(_name))(answer)
