"""The server's options as a configuration file, for ``dangad config``.

Called by :mod:`dangad.cli.operators`. The server sends values and the text of its file, and only
this process makes a new text of them: the server imports no library that writes TOML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

HEAD = "Options of a dangad server, for twistd dangad --config FILE."
ADDED = "These are not in the file that the server was started with."


def show_config(document: dict[str, Any]) -> list[str]:
    """The lines of a file with which a server would be started with the same options.

    If the server has a file, its comments and its order stay, and only values that differ are
    changed or added.
    """
    options: dict[str, Any] = document["options"]
    for name, value in options.items():
        _check_text(name, value)
    text = _changed(document) if document["file"] else _whole(options, document["meanings"])
    return text.removesuffix("\n").split("\n")


def _whole(options: dict[str, Any], meanings: dict[str, str]) -> str:
    """A file with all options, each after its meaning."""
    import tomlkit

    file = tomlkit.document()
    file.add(tomlkit.comment(HEAD))
    for name, value in options.items():
        file.add(tomlkit.nl())
        file.add(tomlkit.comment(meanings.get(name, name)))
        if value is None:
            file.add(tomlkit.comment(f"{name} is not given"))
        else:
            file.add(name, tomlkit.item(value))
    return tomlkit.dumps(file)


def _changed(document: dict[str, Any]) -> str:
    """The server's file with the values that differ now."""
    import tomlkit

    text = document["text"].replace("\r\n", "\n")
    file: TOMLDocument = tomlkit.parse(text if text.endswith("\n") else f"{text}\n")
    changed = {name: document["options"][name] for name in document["changed"]}
    added = {name: value for name, value in changed.items() if name not in file}
    for name in changed.keys() - added.keys():
        file[name] = changed[name]
    if added:
        file.add(tomlkit.nl())
        file.add(tomlkit.comment(ADDED))
    for name, value in added.items():
        file.add(name, tomlkit.item(value))
    return tomlkit.dumps(file)


def _check_text(name: str, value: Any) -> None:
    """Check that TOML can hold a value.

    :raises ValueError: it cannot: a path on the server's command line may be of any bytes.
    """
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{name} is not UTF-8, and a TOML file cannot hold it")
