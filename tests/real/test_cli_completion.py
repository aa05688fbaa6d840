"""Shells complete the command lines of ``dangad``: the protocol of each, and a real bash."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dangad import cli
from dangad.cli.outcome import WRONG_USAGE

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""
Asked = Callable[..., str]
SHELLS = ("bash", "zsh", "fish")
LEAN = """
import sys
from dangad.cli import main
status = main(sys.argv[1:])
heavy = {"rich", "twisted"} & {*sys.modules}
sys.exit(f"imported: {heavy}" if heavy else status)
"""
"""The command, which fails if it has imported what takes longer than all else."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asked:
    """What the command answers to a shell that asks by these variables."""

    def ask(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert cli.main([]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return ask


def complete(asked: Asked, shell: str, line: str) -> set[str]:
    """What a shell offers for the last word of a command line."""
    *before, last = line.split(" ")
    number = last if shell == "fish" else str(len(before))
    output = asked(COMP_WORDS=line, COMP_CWORD=number, _DANGAD_COMPLETE=f"{shell}_complete")
    lines = output.strip().splitlines()
    if shell == "zsh":  # a line each for the type, the word, and what is said of it
        return {f"{kind},{word}" for kind, word in zip(lines[::3], lines[1::3], strict=True)}
    return {line.partition("\t")[0] for line in lines}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dangad st", {"status", "stack"}),
        ("dangad help sta", {"status", "stack"}),
        ("dangad help w", {"workers", "watch"}),
        ("dangad w", {"workers", "watch"}),  # and not the old name of scale
        ("dangad jobs --state ", {"queued", "running", "paused"}),
        ("dangad recent --state ti", {"timed_out"}),
        ("dangad recent --outcome ti", {"timed_out"}),
        ("dangad watch --kind worker_s", {"worker_started"}),
        (
            "dangad cancel --",
            {
                "--state",
                "--command",
                "--client",
                "--older-than",
                "--yes",
                "--json",
                "--control",
                "--help",
            },
        ),
        ("dangad watch --kind dr", {"draining"}),
        ("dangad rates --over ", {"1m", "5m", "15m"}),
        ("dangad scale --", {"--force", "--json", "--control", "--help"}),
        ("dangad --control x call --p", {"--priority"}),
        ("dangad call Sleep seconds=1 --priority ", {"high", "normal", "low"}),
        ("dangad call Sleep sec", set()),
    ],
)
def test_words(asked: Asked, shell: str, line: str, offered: set[str]) -> None:
    """Subcommands, options and their values are offered."""
    assert complete(asked, shell, line) == {f"plain,{word}" for word in offered}


@pytest.mark.parametrize("shell", SHELLS)
def test_paths(asked: Asked, shell: str) -> None:
    """Where to connect is completed as the name of a file, which is the shell's own affair."""
    assert complete(asked, shell, "dangad status --control /ru") == {"file,/ru"}


@pytest.mark.parametrize("shell", SHELLS)
def test_source(asked: Asked, shell: str) -> None:
    """Each shell is told what to run."""
    assert f"{shell}_complete" in asked(_DANGAD_COMPLETE=f"{shell}_source")


@pytest.mark.parametrize("variables", [{}, {"COMP_WORDS": "dangad st", "COMP_CWORD": "x"}])
def test_not_asked_by_a_shell(
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A variable that was left behind is named, without a traceback."""
    for name, value in {**variables, "_DANGAD_COMPLETE": "bash_complete"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main([]) == WRONG_USAGE
    assert "$_DANGAD_COMPLETE is set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        ("--version", {}),
        ("help drain", {}),
        ("", {"COMP_WORDS": "dangad st", "COMP_CWORD": "1", "_DANGAD_COMPLETE": "bash_complete"}),
    ],
)
def test_nobody_waits_for_what_is_not_used(words: str, variables: dict[str, str]) -> None:
    """Help and completion come without Twisted and rich."""
    done = subprocess.run(
        [sys.executable, "-c", LEAN, *words.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_real_bash(tmp_path: Path) -> None:
    """In an interactive bash, a Tab completes a subcommand and an option."""
    program = tmp_path / "dangad"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dangad "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PS1": "> ",
        "TERM": "dumb",
    }
    main, terminal = pty.openpty()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        try:
            os.write(main, b'eval "$(_DANGAD_COMPLETE=bash_source dangad)"; echo re""ady\n')
            read_until(main, b"ready")
            os.write(main, b"dangad unq\t--he\t\n")
            read_until(main, b"Usage: dangad unquarantine")
        finally:
            shell.kill()
            os.close(main)


def read_until(terminal: int, text: bytes) -> None:
    """Read what a terminal shows until the text is there."""
    shown = b""
    end = time.monotonic() + PATIENCE
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], max(end - time.monotonic(), 0))
        assert ready, shown
        with contextlib.suppress(OSError):
            shown += os.read(terminal, 65_536)
