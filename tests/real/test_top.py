"""`dangad top` in a real terminal, tmux, with a real server: it shows, acts, and tidies up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.blockingpeer import code_of
from tests.twistdserver import TextServer, text_server, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
SLEEP = b"import time; time.sleep(60)"
COMMAND = f"{sys.executable} -m dangad.cli"
MODES = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{bracket_paste_flag}"
"""What tmux knows of a terminal that a program can leave changed."""
PROGRAM = "#{pane_current_command}"
"""What tmux tells of the program in the foreground."""

server = text_server(scope="function")
needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="there is no tmux")


class Terminal:
    """A shell in tmux."""

    def __init__(self, folder: str) -> None:
        """Start it in this folder, without the configuration of a user."""
        self._tmux = ("tmux", "-S", f"{folder}/tmux", "-f", "/dev/null", "-u")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DANGAD_", "TMUX", "TEXTUAL"))
        }
        self._environment = {**inherited, "PYTHONPATH": str(ROOT), "ENV": "", "PS1": "$ "}
        self._do("new-session", "-d", "-x", "80", "-y", "24", "-c", folder, "sh")
        wait_for(lambda: self.text.strip(), "the shell")
        self._modes, self._shell = (self._do("display", "-p", each) for each in (MODES, PROGRAM))
        #: How often the command was run.
        self._runs = 0

    def _do(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words], env=self._environment, check=True, stdout=subprocess.PIPE
        ).stdout.decode()

    @property
    def text(self) -> str:
        """What can be read in it."""
        return self._do("capture-pane", "-p")

    def type(self, *keys: str) -> None:
        """Press keys, each by tmux's name for it."""
        self._do("send-keys", *keys)

    def shows(self, *texts: str) -> str:
        """Wait until all texts can be read; then all that can be read."""

        def found() -> str:
            text = self.text
            return text if all(each in text for each in texts) else ""

        try:
            return str(wait_for(found))
        except AssertionError:
            raise AssertionError(f"no {texts} in the terminal:\n{self.text}") from None

    def run(self, words: str) -> None:
        """Run the command, after a look at the settings of the terminal."""
        self._runs += 1
        self.type(f"clear; stty -a > before; {COMMAND} {words}", "Enter")

    def ended(self) -> str:
        """Wait until the command, which has shown something, has ended; its exit status.

        The terminal must be as it was.
        """
        wait_for(lambda: self._do("display", "-p", PROGRAM) == self._shell, "the end")
        assert self._do("display", "-p", MODES) == self._modes
        end = f"ended {self._runs}: "
        self.type(
            f"printf '\\n{end}%s\\n' $?; stty -a > after; cmp before after && echo same", "Enter"
        )
        text = self.shows(f"\n{end}", "\nsame")
        return text.rpartition(f"\n{end}")[2].partition("\n")[0]

    def pid_of_command(self) -> int:
        """The process of the command, which the shell runs."""
        shell = int(self._do("display", "-p", "#{pane_pid}"))
        [child] = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(child)

    def close(self) -> None:
        """End it, and all that runs in it."""
        self._do("kill-server")


@pytest.fixture
def terminal(server: TextServer) -> Iterator[Terminal]:
    """A terminal in the folder of the server."""
    own = Terminal(server.folder)
    yield own
    own.close()


@needs_tmux
def test_top(server: TextServer, terminal: Terminal) -> None:
    """It shows what waits and runs, cancels what is chosen, and quits."""
    with server.connect() as peer:
        running, waiting = (peer.ask(b"Python", code=SLEEP) for _ in range(2))
        terminal.run("top")
        text = terminal.shows(" Python ", "queued", "running", "waiting 1", "q Quit")
        assert "● " in text
        terminal.type("t")
        terminal.shows('File "<job>", line 1 in <module>')
        terminal.type("q", "Down")
        terminal.type("c")
        terminal.shows("Cancel job 2, Python?")
        terminal.type("y")
        assert code_of(peer.answer(waiting)) == "CANCELLED"
        terminal.shows("job 2, Python: cancelled", "waiting 0")
        terminal.type("c")
        terminal.shows("Cancel job 1, Python?")
        terminal.type("y")
        assert code_of(peer.answer(running)) == "CANCELLED"
    terminal.type("q")
    assert terminal.ended() == "0"


@needs_tmux
def test_server_restarts(server: TextServer, terminal: Terminal) -> None:
    """While there is no server it says so, and goes on with the next one."""
    terminal.run("top")
    terminal.shows(f"pid {server.process.pid}")
    server.process.kill()
    server.process.wait()
    terminal.shows("no connection, trying again")
    os.unlink(f"{server.folder}/notices")
    again = TextServer(server.folder)
    try:
        text = terminal.shows(f"pid {again.process.pid}")
        assert "no connection" not in text
        again.process.send_signal(signal.SIGSTOP)
        terminal.shows("no answer for")
        again.process.send_signal(signal.SIGCONT)
        wait_for(lambda: "no answer" not in terminal.text)
    finally:
        again.stop()
    terminal.type("C-c")
    assert terminal.ended() == "0"


@needs_tmux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(server: TextServer, terminal: Terminal, number: signal.Signals) -> None:
    """A signal ends it, with the terminal as it was; the shell sees by which one."""
    terminal.run("top")
    terminal.shows("running 0", "q Quit")
    os.kill(terminal.pid_of_command(), number)
    assert terminal.ended() == str(128 + number)


@needs_tmux
def test_suspended(server: TextServer, terminal: Terminal) -> None:
    """Ctrl-Z gives the terminal to the shell, and fg gives it back."""
    terminal.run("top")
    terminal.shows("running 0", "q Quit")
    terminal.type("C-z")
    terminal.ended()
    terminal.type("clear; fg", "Enter")
    terminal.shows("running 0", "q Quit")
    terminal.type("q")
    assert terminal.ended() == "0"


@needs_tmux
def test_wrong_doors(server: TextServer, terminal: Terminal) -> None:
    """What cannot be watched is one line, and the screen is never begun."""
    for control, said, status in (
        ("nowhere", "cannot connect to unix:nowhere", "3"),
        ("dangad.sock", "dangad.sock is where clients connect", "2"),
    ):
        terminal.run(f"--control {control} top")
        terminal.shows(said)
        assert terminal.ended() == status


def test_no_terminal() -> None:
    """Without a terminal, or without textual, it says what it needs in one line."""
    program = "import sys; {} from dangad.cli import main; sys.exit(main(['top']))"
    for before, said in (
        ("", "dangad: top needs a terminal"),
        ("sys.modules['textual'] = None;", "pip install 'dangad[top]'"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", program.format(before)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert said in done.stderr
