"""Whether a value is what an AMP argument is declared to carry, before AMP turns it into bytes.

Used by :mod:`dangad.client` for arguments and by :mod:`dangad.worker` for responses. AMP itself
sends 2.7 as the Integer 2, any object as the Boolean True, and the characters of a text as a list.
Here a value of the wrong type is refused, with a text that names the type. The checked argument
classes are AMP's and :class:`~dangad.wire.values.Large`. A user's own class decides by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any

from twisted.protocols import amp

from dangad.wire.boxes import MAX_KEY, MAX_VALUE
from dangad.wire.values import Blob, Large, python_name

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Any], Any]


class WrongValue(Exception):
    """A value that its argument cannot carry; the text continues a sentence after the value's name.

    :ivar path: the wrong part of the value, as in "[3]" or "[3]['size']".
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


def check_of(argument: amp.Argument) -> Check | None:
    """A function that returns the value to send, or raises `WrongValue` if the value is wrong.

    None for argument classes that decide by themselves.
    """
    whole: Any = argument  # AMP declares its parts without types
    kind = type(argument)
    if kind in (Large, Blob):
        return check_of(whole.argument)
    if kind is amp.ListOf:
        return partial(_list, check_of(whole.elementType))
    if kind is amp.AmpList:
        keys = [(python_name(key), each.optional, check_of(each)) for key, each in whole.subargs]
        return partial(_boxes, keys)
    return _SCALARS.get(kind)


def too_long(error: amp.TooLong) -> str:
    """What is wrong with a key or value that AMP cannot send, to follow the argument's name."""
    size = len(error.value)
    if error.isKey:
        return f"needs a key of {size} bytes, {error.value[:40]!r}..., and AMP takes {MAX_KEY}"
    return (
        f"is {size} bytes long, and AMP takes {MAX_VALUE:,} in one value: declare it as "
        "dangad.Blob() or dangad.Large(...)"
    )


def _wrong(value: object, taker: str) -> WrongValue:
    kind = "None" if value is None else f"a {type(value).__name__}"
    return WrongValue(f"is {kind}, where {taker}")


def _integer(value: Any) -> int:
    """The whole number; everything that Python accepts as an index is one, as numpy's integers."""
    try:
        return int.__index__(index(value))
    except TypeError:
        raise _wrong(value, "Integer takes a whole number") from None


def _float(value: Any) -> float:
    value = _plain(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    if not isinstance(value, float):
        raise _wrong(value, "Float takes a float")
    return float.__pos__(value)


def _boolean(value: Any) -> bool:
    value = _plain(value)
    if value is not True and value is not False:
        raise _wrong(value, "Boolean takes True or False")
    return value


def _plain(value: Any) -> Any:
    """The value; a numpy scalar becomes a Python one."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _string(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise _wrong(value, "String takes bytes")
    return bytes(value)


def _unicode(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "Unicode takes a str")
    return str.__str__(value)


def _decimal(value: Any) -> Decimal:
    if not isinstance(value, Decimal):
        raise _wrong(value, "Decimal takes a decimal.Decimal")
    return value


def _datetime(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _wrong(value, "DateTime takes a datetime.datetime")
    if value.utcoffset() is None:
        raise WrongValue("is a datetime without a time zone, which DateTime cannot carry")
    return value


def _list(check: Check | None, value: Any) -> list[Any]:
    elements = _elements(value, "ListOf takes a list")
    return elements if check is None else _each(check, elements)


def _boxes(keys: list[tuple[str, bool, Check | None]], value: Any) -> list[Any]:
    return _each(partial(_box, keys), _elements(value, "AmpList takes a list of dicts"))


def _box(keys: list[tuple[str, bool, Check | None]], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, "AmpList takes a dict")
    box = dict(value)
    for name, optional, check in keys:
        if optional and box.get(name) is None:
            continue
        if name not in box:
            raise WrongValue(f"has no {name!r}")
        if check is not None:
            try:
                box[name] = check(box[name])
            except WrongValue as error:
                raise WrongValue(str(error), f"[{name!r}]{error.path}") from None
    return box


def _elements(value: Any, taker: str) -> list[Any]:
    """The elements of a value that may stand for a list; texts and mappings may not."""
    texts = (str, bytes, bytearray, memoryview, Mapping)
    if isinstance(value, texts) or not isinstance(value, Iterable):
        raise _wrong(value, taker)
    return list(value)


def _each(check: Check, elements: list[Any]) -> list[Any]:
    """The result of `check` for each element; the error for a wrong element names its place."""
    right: list[Any] = []
    try:
        for element in elements:
            right.append(check(element))  # noqa: PERF401 - its length tells which was wrong
    except WrongValue as error:
        raise WrongValue(str(error), f"[{len(right)}]{error.path}") from None
    return right


_SCALARS: dict[type[amp.Argument], Check] = {
    amp.Integer: _integer,
    amp.Float: _float,
    amp.Boolean: _boolean,
    amp.String: _string,
    amp.Unicode: _unicode,
    amp.Decimal: _decimal,
    amp.DateTime: _datetime,
}
