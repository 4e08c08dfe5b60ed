"""Events are found and changed however a stream is split, and no byte is lost (HTML, server-sent events, 9.2.6)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import BadGateway
from sidecar.policy.events import EventSplitter, data_of, with_data

BOM = b"\xef\xbb\xbf"
MEGABYTE = 1024 * 1024

streams = st.text(alphabet="\r\n: dxé", max_size=30).map(str.encode) | st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:b",
            b"data",
            b": c",
            b":",
            b"id: 1",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"\r\n\r\n",
            b"\r\r",
            BOM,
        ]
    ),
    max_size=20,
).map(b"".join)


def split(*chunks: bytes, max_event_bytes: int = MEGABYTE) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(max_event_bytes)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.rest()


def dispatched(stream: bytes) -> list[bytes]:
    """Return the data of each event as the standard's algorithm dispatches it, which is not how the code works."""
    data: list[bytes] = []
    found: list[bytes] = []
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        if not line:
            found += [b"\n".join(data)] if data else []
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return found


@pytest.mark.parametrize(
    ("stream", "events", "rest"),
    [
        (b"", [], b""),
        (b"data: a\n\n", [b"data: a\n\n"], b""),
        (b"data: a\r\n\r\n", [b"data: a\r\n\r\n"], b""),
        (b"data: a\r\r", [b"data: a\r\r"], b""),
        (b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n"], b""),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\r\n\r\n", b"data: b\r\n\r\n"], b""),
        (b"data: a\r\rdata: b\r\r", [b"data: a\r\r", b"data: b\r\r"], b""),
        (b"data: a\n\r\ndata: b\r\n\n", [b"data: a\n\r\n", b"data: b\r\n\n"], b""),
        (b"data: a\n\rdata: b\r\n\rdata: c", [b"data: a\n\r", b"data: b\r\n\r"], b"data: c"),
        (b"data: a\r\n", [], b"data: a\r\n"),
        (b"data: a\n\r", [], b"data: a\n\r"),
        (b"data: a\r", [], b"data: a\r"),
        (b"data: a\r\r\ndata: b\n\n", [b"data: a\r\r", b"\ndata: b\n\n"], b""),
        (b"data: a\r\r\n", [b"data: a\r\r"], b"\n"),
        (b"\n\n\r\n", [b"\n", b"\n", b"\r\n"], b""),
        (b"\r\r\r", [b"\r", b"\r", b"\r"], b""),
        (b": hello\n\nid: 1\ndata:\n\n", [b": hello\n\n", b"id: 1\ndata:\n\n"], b""),
        (b"data: a\ndata: b\n\n", [b"data: a\ndata: b\n\n"], b""),
        (b"data: a\x0b\x0c\xc2\x85\xe2\x80\xa8b\n\n", [b"data: a\x0b\x0c\xc2\x85\xe2\x80\xa8b\n\n"], b""),
    ],
)
def test_a_blank_line_ends_an_event_whatever_ends_the_lines(stream: bytes, events: list[bytes], rest: bytes) -> None:
    assert split(stream) == (events, rest)
    assert split(*[stream[i : i + 1] for i in range(len(stream))]) == (events, rest)


@given(streams, st.data())
def test_any_split_of_any_stream_gives_the_same_events_and_loses_no_byte(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    events, rest = split(*chunks)

    assert (events, rest) == split(stream)
    assert b"".join([*events, rest]) == stream


@given(streams.map(lambda stream: stream.replace(BOM, b"")))
def test_the_events_are_those_of_the_standard(stream: bytes) -> None:
    events, rest = split(stream + b"\n\n")

    assert [data for event in [*events, rest] if (data := data_of(event)) is not None] == dispatched(stream + b"\n\n")


def test_a_stream_split_at_every_byte_gives_its_events() -> None:
    stream = (
        b": hi\r\n\r\nid: 7\r\nevent: message\r\ndata: {}\r\n\r\ndata: a\ndata: b\n\nretry: 5\rdata: c\r\rdata: rest"
    )
    expected = split(stream)

    for at in range(len(stream) + 1):
        assert split(stream[:at], stream[at:]) == expected
    assert len(expected[0]) == 4
    assert expected[1] == b"data: rest"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_given_out_with_its_last_byte(end: bytes) -> None:
    splitter = EventSplitter(100)
    event = b"data: a" + end + end

    assert splitter.feed(event[:-1]) == []
    assert splitter.feed(event[-1:]) == [event]


@pytest.mark.parametrize("size", [1, 1000, 65_536])
def test_an_event_of_a_megabyte_comes_whole(size: int) -> None:
    event = b"data: " + random.Random(1).randbytes(MEGABYTE).translate(None, b"\r\n") + b"\n\n"  # noqa: S311 - filler
    step = size if size > 1 else len(event)

    events, rest = split(*[event[i : i + step] for i in range(0, len(event), step)], max_event_bytes=2 * MEGABYTE)

    assert events == [event]
    assert rest == b""


@pytest.mark.parametrize("chunks", [[b"data: 12\n\n"], [b"data", b": 12\n", b"\n"], [b"data: 1234"], [b": c\n"] * 3])
def test_an_event_beyond_the_limit_is_refused_however_it_comes(chunks: list[bytes]) -> None:
    with pytest.raises(BadGateway) as refused:
        split(*chunks, max_event_bytes=9)

    assert refused.value.reason == "upstream_event_too_large"


def test_the_limit_is_for_one_event_and_not_for_the_stream() -> None:
    events, rest = split(b"data: 1\n\n" * 5 + b"data: 123", max_event_bytes=9)

    assert events == [b"data: 1\n\n"] * 5
    assert rest == b"data: 123"


@pytest.mark.parametrize(
    ("chunk", "comments", "rest"),
    [
        (b": ping\n", b": ping\n", b""),
        (b": ping\r\n:\r\n: pi", b": ping\r\n:\r\n", b": pi"),
        (b": ping\ndata: a\n: b\n", b": ping\n", b"data: a\n: b\n"),
        (b"data: a\n: b\n", b"", b"data: a\n: b\n"),
        (b": ping\r", b"", b": ping\r"),
        (b": pi", b"", b": pi"),
        (b"\r\r\n: ping\n", b"\n: ping\n", b""),
        (b"", b"", b""),
    ],
)
def test_comments_before_an_event_can_be_had_before_it(chunk: bytes, comments: bytes, rest: bytes) -> None:
    splitter = EventSplitter(100)
    splitter.feed(chunk)

    assert splitter.comments() == comments
    assert splitter.comments() == b""
    assert splitter.rest() == rest
    assert splitter.rest() == b""


@given(st.lists(streams, max_size=5))
def test_taking_the_comments_out_changes_no_data_and_loses_no_byte(chunks: list[bytes]) -> None:
    splitter, pieces = EventSplitter(MEGABYTE), []
    for chunk in chunks:
        pieces += [*splitter.feed(chunk), splitter.comments()]
    pieces.append(splitter.rest())
    events, rest = split(b"".join(chunks))

    assert b"".join(pieces) == b"".join(chunks)
    assert [data_of(piece) for piece in pieces if data_of(piece) is not None] == [
        data_of(event) for event in [*events, rest] if data_of(event) is not None
    ]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"", None),
        (b"\n", None),
        (b": comment\n\n", None),
        (b"id: 1\nretry: 5\n\n", None),
        (b"dat: a\nDATA: b\n data: c\ndatax: d\n\n", None),
        (b": data: a\n\n", None),
        (b"data\n\n", b""),
        (b"data:\n\n", b""),
        (b"data: \n\n", b""),
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a \n\n", b" a "),
        (b"data:\ta\n\n", b"\ta"),
        (b"data: a: b\r\n\r\n", b"a: b"),
        (b"data: a\r\r", b"a"),
        (b"data: a", b"a"),
        (b"id: 1\ndata: a\n: c\ndata\ndata:b\n\n", b"a\n\nb"),
        (b"data: a\xe2\x80\xa8data: b\x0cdata: c\n\n", b"a\xe2\x80\xa8data: b\x0cdata: c"),
        (BOM + b"data: a\n\n", b"a"),
        (BOM + b": c\n\n", None),
        (b"\ndata: a\n\n", b"a"),
    ],
)
def test_the_data_of_an_event_is_its_data_lines_joined(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        (b"data: a\n\n", b"b", b"data: b\n\n"),
        (b"data:a\r\n\r\n", b"b", b"data: b\r\n\r\n"),
        (b"data: a\r\r", b"b", b"data: b\r\r"),
        (b"data: a", b"b", b"data: b"),
        (b"data: a", b"b\nc", b"data: b\ndata: c"),
        (b"data\n\n", b"b", b"data: b\n\n"),
        (b"data: a\n\n", b"", b"data: \n\n"),
        (b"data: a\n\n", b" b", b"data:  b\n\n"),
        (
            b"event: message\r\nid: 4\r\ndata: a\r\n: c\r\nretry:5\r\ndata: b\r\nodd\r\n\r\n",
            b"x",
            b"event: message\r\nid: 4\r\n: c\r\nretry:5\r\ndata: x\r\nodd\r\n\r\n",
        ),
        (b"data: a\r\n\r\n", b"1\n2\r\n3\r4", b"data: 1\r\ndata: 2\r\ndata: 3\r\ndata: 4\r\n\r\n"),
        (b"data: a\ndata: b", b"c", b"data: c"),
        (b"data: a\rdata: b\n\n", b"c", b"data: c\n\n"),
        (b"data: a\nid: 1\rdata: b\n\n", b"c", b"id: 1\rdata: c\n\n"),
        (b": c\n\n", b"b", b": c\n\n"),
        (b"", b"b", b""),
        (BOM + b"data: a\n\n", b"b", b"data: b\n\n"),
        (BOM + b"id: 1\ndata: a\n\n", b"b", BOM + b"id: 1\ndata: b\n\n"),
    ],
)
def test_other_data_takes_the_place_of_the_old_and_every_other_line_stays(
    event: bytes, data: bytes, expected: bytes
) -> None:
    assert with_data(event, data) == expected


@given(streams, st.binary(max_size=20) | streams)
def test_no_data_can_break_out_of_its_event(stream: bytes, data: bytes) -> None:
    (event, *_), _ = split(stream.replace(BOM, b"") + b"\n\n\n")
    if data_of(event) is None:
        return
    changed = with_data(event, data)

    assert split(changed + b"x") == ([changed], b"x")
    assert data_of(changed) == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert lines_without_data(changed) == lines_without_data(event)


def lines_without_data(event: bytes) -> list[bytes]:
    lines = event.splitlines(keepends=True)
    return [line for line in lines if not line.startswith(b"data:") and line.strip(b"\r\n") != b"data"]
