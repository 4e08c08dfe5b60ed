"""An answer that is silent for a while."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.denials import BadGateway, GatewayTimeout
from sidecar.edge.upstream_answer import Answer

PAUSE_S = 0.01


class Source:
    """The connection that an answer is read from."""

    def __init__(self) -> None:
        self.dropped = False

    def resume_reading(self) -> None:
        """Nothing is paused here."""

    def drop(self) -> None:
        self.dropped = True


def arrive(answer: Answer, piece: bytes) -> None:
    answer.add(piece)
    answer.wake()


async def test_a_silence_is_an_empty_piece_and_loses_nothing() -> None:
    answer = Answer(Source(), idle_timeout_s=None)
    pieces = answer.pieces(PAUSE_S)
    async with asyncio.timeout(5):
        assert await anext(pieces) == b""
        assert await anext(pieces) == b""
        arrive(answer, b"data: 1\n\n")
        assert await anext(pieces) == b"data: 1\n\n"
        assert await anext(pieces) == b""
        answer.ended = True
        answer.wake()
        assert [piece async for piece in pieces if piece] == []


async def test_silences_add_up_to_the_idle_time_and_a_piece_begins_it_anew() -> None:
    source = Source()
    answer = Answer(source, idle_timeout_s=5 * PAUSE_S)
    pieces = answer.pieces(2 * PAUSE_S)
    async with asyncio.timeout(5):
        for _ in range(3):
            assert [await anext(pieces), await anext(pieces)] == [b"", b""]
            arrive(answer, b"x")
            assert await anext(pieces) == b"x"
        assert [await anext(pieces), await anext(pieces)] == [b"", b""]
        with pytest.raises(GatewayTimeout):
            await anext(pieces)
    assert source.dropped


async def test_what_breaks_off_says_so_after_what_came() -> None:
    answer = Answer(Source(), idle_timeout_s=None)
    pieces = answer.pieces(PAUSE_S)
    arrive(answer, b"x")
    answer.fail(BadGateway("upstream_truncated"))
    assert await anext(pieces) == b"x"
    with pytest.raises(BadGateway):
        await anext(pieces)
