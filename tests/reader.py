"""A reader of the documents: dangad installed in a virtual environment, outside of the checkout.

The environment is made once per run, for all tests and all processes of pytest-xdist together:
the wheel is built and installed in it, and the programs that a reader types (``twistd``,
``trial``, ``pytest``, ...) are there as pip has written them, but for the interpreter that they
name. What dangad depends on comes from the environment that runs the tests.
"""

import atexit
import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 60
"""Seconds after which what should have been printed is missed."""
FOLDER_VARIABLE = "DANGAD_TESTS_READER"
"""Names the folder that all processes of one run share."""
PROGRAMS = ("pytest", "trial", "twist", "twistd")
"""What a reader runs that is no part of dangad."""

BLOCK = re.compile(r"^```(?P<kind>[a-z]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def share_folder() -> Path:
    """Make the folder of this run, for this process and those that it starts."""
    folder = tempfile.mkdtemp(prefix="dangad-reader-")
    os.environ[FOLDER_VARIABLE] = folder
    return Path(folder)


@cache
def virtual_environment() -> Path:
    """The virtual environment of this run, made when it is first asked for."""
    if FOLDER_VARIABLE not in os.environ:  # under trial, which has no configuration of ours
        atexit.register(shutil.rmtree, share_folder(), ignore_errors=True)
    folder = Path(os.environ[FOLDER_VARIABLE])
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            _make(folder)
            (folder / "made").touch()
    return folder / "venv"


def environment_variables() -> dict[str, str]:
    """The environment of a reader's shell, in which the virtual environment is active."""
    return {
        "PATH": f"{virtual_environment() / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(virtual_environment()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
    }


def commands_of(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that follows it."""
    command, output = "", ""
    for line in body.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:].strip(), ""
        else:
            output += line
    yield command, output


def pattern_of(output: str) -> str:
    """A regular expression for what a page shows; ``...`` alone is any number of lines."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r" *\n"
        for line in output.splitlines()
    ]
    return "".join(lines)


def _make(folder: Path) -> None:
    """Make the virtual environment in `folder`."""
    venv = folder / "venv"
    _run("-m", "venv", "--without-pip", str(venv))
    _run("-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT))
    wheel = next(folder.glob("*.whl"))
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    python = str(venv / "bin" / "python")
    _run("-m", "pip", *quiet, "--python", python, "install", "--no-deps", "--no-index", str(wheel))
    dependencies = sysconfig.get_path("purelib")
    here = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
    Path(here, "dependencies.pth").write_text(f"{dependencies}\n")
    for name in PROGRAMS:
        _, _, program = Path(sys.executable).with_name(name).read_text().partition("\n")
        (venv / "bin" / name).write_text(f"#!{python}\n{program}")
        (venv / "bin" / name).chmod(0o755)


def _run(*arguments: str) -> None:
    """Run Python with these arguments; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
