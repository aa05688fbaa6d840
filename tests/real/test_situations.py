"""The table of situations, on a real server: one worker, and after each odd job an innocent one."""

import re

import pytest

from tests.blockingpeer import code_of, text_of
from tests.situations import SITUATIONS, Situation
from tests.twistdserver import TextServer, text_server

server = text_server()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name.replace(" ", "-"))
def test_situation(server: TextServer, situation: Situation) -> None:
    """The job ends as its row says, and the next one notices nothing."""
    before = len(server.log())
    odd = server.connect()
    answer = odd.call(situation.command, code=situation.code.encode(), **dict(situation.options))
    assert code_of(answer) == situation.code_says, text_of(answer)
    if situation.code_says != "ok":
        assert re.search(situation.says, text_of(answer))
    elif situation.says:
        assert re.fullmatch(situation.says, answer[b"out"].decode())
    next_client = server.connect()
    answer = next_client.call(b"Python", code=situation.then.encode(), _progress=b"1", _chunks=b"1")
    assert code_of(answer) == "ok", text_of(answer)
    assert re.fullmatch(situation.then_says, answer[b"out"].decode())
    assert not next_client.news
    if situation.logs:
        assert re.search(situation.logs, server.log()[before:])
    odd.close()
    next_client.close()
