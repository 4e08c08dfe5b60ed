"""Streams of whole events, however they are cut and however their lines end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.events import data_of, with_data
from tests.fuzz import events as target

ENDS = (b"\n", b"\r\n", b"\r")
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6).map(str.encode)
fields = (
    st.builds(lambda value, gap: b"data:" + gap + value, texts, st.sampled_from([b"", b" "]))
    | st.builds(lambda value: b"id: " + value, texts)
    | st.builds(lambda value: b":" + value, texts)
    | st.sampled_from([b"data", b"event: message", b"retry: 5", b"odd"])
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw events that are written as they should be, but for their line ends, which may be mixed."""
    lines = [line for event in draw(st.lists(st.lists(fields, max_size=4), max_size=5)) for line in (*event, b"")]
    end = draw(st.sampled_from(ENDS) | st.none())
    ends = [end or draw(st.sampled_from(ENDS)) for _ in lines]
    return b"".join(line + end for line, end in zip(lines, ends, strict=True)) + draw(fields | st.just(b""))


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Draw a stream and its chunks, with silences between."""
    stream = draw(streams())
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)], stream


@given(cut_streams())
def test_every_cut_gives_the_same_events_and_the_same_verdict_on_their_size(cut: tuple[list[bytes], bytes]) -> None:
    target.judge_splitting(*cut)


@given(cut_streams())
def test_what_is_not_rewritten_passes_to_the_byte_and_silences_with_it(cut: tuple[list[bytes], bytes]) -> None:
    chunks, stream = cut
    out = target.pieces(chunks, target.unchanged)

    assert b"".join(out) == stream
    assert out.count(b"") == chunks.count(b"")


@given(cut_streams())
def test_no_reader_sees_data_that_was_not_rewritten_nor_misses_an_event(cut: tuple[list[bytes], bytes]) -> None:
    chunks, stream = cut
    target.judge_rewriting(b"".join(target.pieces(chunks, target.marked)), stream)


@given(streams(), st.integers(0, 60))
def test_what_is_sent_before_a_stream_breaks_off_holds_no_data_but_rewritten(stream: bytes, at: int) -> None:
    sent = b"".join(target.pieces([stream[:at], b"", stream[at:]], target.marked)[:-1])

    assert {event.data for event in target.dispatched(sent, careless=False)} <= {target.MARK}


@given(st.lists(fields, min_size=1, max_size=5), st.sampled_from(ENDS), st.binary(max_size=12))
def test_replaced_data_is_what_is_read_and_replacing_it_again_changes_nothing_else(
    event: list[bytes], end: bytes, data: bytes
) -> None:
    whole = b"".join(line + end for line in (*event, b""))
    if data_of(whole) is None:
        return
    replaced = with_data(whole, data)

    assert data_of(replaced) == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert with_data(replaced, data) == replaced
