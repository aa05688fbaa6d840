"""What ``dangad dev`` serves: the modules that its words name, and the folders of their code.

Used by :mod:`dangad.cli.dev`. A word is a file, a folder that is a package, or the dotted name of a
module. Nothing is imported here: that is for workers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

from dangad.cli.outcome import WrongUsage
from dangad.text import meant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NEEDED = frozenset({"ampoule", "dangad", "twisted", "zope"})
"""Modules, besides Python's own, that a worker imports itself."""


@dataclass(frozen=True, slots=True)
class JobCode:
    """The job modules, and where they are."""

    modules: tuple[str, ...]
    """Their dotted names, for ``--jobs``."""
    paths: tuple[str, ...]
    """The folders that they are imported from, for ``--worker-path``. The working directory is
    left out if they are found without: workers look there last."""
    folders: tuple[str, ...]
    """The folders whose Python files are watched, with all folders in them."""
    files: tuple[str, ...]
    """The files of the modules themselves."""
    hiding: tuple[str, ...]
    """Files that workers would import in place of Python's own modules."""

    @property
    def options(self) -> list[str]:
        """The words of the server's command line that name the modules."""
        paths = [word for path in self.paths for word in ("--worker-path", path)]
        return paths + [word for module in self.modules for word in ("--jobs", module)]


@dataclass(frozen=True, slots=True)
class _Module:
    """One module, and where it is."""

    name: str
    path: str
    folder: str
    file: str


def find_jobs(words: Sequence[str], paths: Sequence[str] = ()) -> JobCode:
    """The job modules that the words name.

    :param words: files, folders and dotted names.
    :param paths: further folders from which modules are imported.
    :raises WrongUsage: a word names no module; the text says why, in one line.
    """
    for each in paths:
        if not os.path.isdir(each):
            raise WrongUsage(f"--worker-path {each}: there is no such directory")
    further = [os.path.abspath(each) for each in paths]
    found = [_find(word, further) for word in words]
    files: dict[str, str] = {}
    for module in found:
        other = files.setdefault(module.name, module.file)
        if other != module.file:
            text = f"{module.file} and {other} would both be the module {module.name}"
            raise WrongUsage(f"{text}: rename one of them")
    needed = [module.path for module in found if not _is_found_here(module)]
    roots = _once([*further, *needed])
    return JobCode(
        _once(module.name for module in found),
        roots,
        _once([*further, *(module.folder for module in found)]),
        _once(module.file for module in found),
        tuple(file for root in roots for file in _hiding(root)),
    )


def _is_found_here(module: _Module) -> bool:
    """Whether workers find a module without being told of its folder."""
    if module.path != os.getcwd():
        return False
    top = module.name.partition(".")[0]
    return (
        PathFinder.find_spec(top, [each for each in sys.path if each not in {"", module.path}])
        is None
    )


def _hiding(folder: str) -> list[str]:
    """The files in a folder that have the name of one of Python's own modules."""
    names = sorted(os.listdir(folder))
    own = sys.stdlib_module_names
    return [os.path.join(folder, name) for name in names if name[-3:] == ".py" and name[:-3] in own]


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _find(word: str, paths: Sequence[str]) -> _Module:
    """The module that a word names.

    :raises WrongUsage: there is none.
    """
    if os.path.isdir(word):
        package = os.path.join(word, "__init__.py")
        if os.path.isfile(package):
            return _module_in(package)
        raise WrongUsage(f"{word} is a directory, and no package: name the files in it")
    if os.path.isfile(word) or word.endswith(".py") or os.sep in word:
        return _module_in(word)
    return _module_of(word, paths)


def _module_in(file: str) -> _Module:
    """The module in a file: in a package it has a dotted name."""
    folder, base = os.path.split(os.path.abspath(file))
    if not os.path.isfile(file):
        near = os.listdir(folder) if os.path.isdir(folder) else []
        alike = meant(base, [each for each in near if each.endswith(".py")])
        raise WrongUsage(f"{file}: there is no such file{alike}")
    stem, extension = os.path.splitext(base)
    if extension != ".py":
        raise WrongUsage(f"{file} is not a Python file: the name of such a file ends in .py")
    if not stem.isidentifier():
        name = "".join(c if c.isalnum() else "_" for c in stem)
        raise WrongUsage(f"{file}: Python cannot import {stem!r}; rename the file to {name}.py")
    parts = [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    if not parts:
        raise WrongUsage(f"{file}: this folder cannot be a package")
    if len(parts) == 1 and stem != "__init__" and stem in sys.stdlib_module_names | _NEEDED:
        whose = "dangad needs" if stem in _NEEDED else "Python has"
        raise WrongUsage(f"{file} would hide the module {stem} that {whose}: rename the file")
    return _Module(".".join(parts), folder, folder, os.path.abspath(file))


def _module_of(name: str, paths: Sequence[str]) -> _Module:
    """The module of a dotted name.

    :raises WrongUsage: there is none.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise WrongUsage(f"{name} is neither a file nor the name of a module")
    here = os.getcwd()
    top, spec = None, None
    search: Sequence[str] | None = [*paths, here, *filter(None, sys.path)]
    before = ""
    for part in name.split("."):
        whole = f"{before}.{part}".lstrip(".")
        spec = None if search is None else PathFinder.find_spec(whole, search)
        if spec is None:
            near = [each.removesuffix(".py") for each in os.listdir(here) if each.endswith(".py")]
            inside = f" in {before}" if before else ""
            raise WrongUsage(f"there is no module {part!r}{inside}{meant(name, near)}")
        top, before, search = top or spec, whole, spec.submodule_search_locations
    file = _file_of(spec)
    above = _file_of(top)
    if file is None or above is None:
        raise WrongUsage(f"{name} is not written in Python, or a folder without __init__.py")
    folder = os.path.dirname(above)
    is_package = os.path.basename(above) == "__init__.py"
    path = os.path.dirname(folder) if is_package else folder
    return _Module(name, path, path if path in {here, *paths} else folder, file)


def _file_of(spec: ModuleSpec | None) -> str | None:
    """The Python file of a module."""
    origin = None if spec is None else spec.origin
    return os.path.abspath(origin) if origin and origin.endswith(".py") else None
