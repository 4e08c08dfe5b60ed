"""The page where a person decides about one call of a program, used as people use it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser.chromium import Tab
from tests.browser.conftest import Serve
from tests.browser.serving import Served, until
from tests.browser.test_keys import BLANK, HOSTILE, assert_open_to_all, sign_in
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, modern, request

pytestmark = pytest.mark.browser

ASKED_ABOUT = "delete_transaction"
DESTRUCTIVE = {"access": {"tools": {"destructive": [ASKED_ABOUT]}}}
SHOWN_CHARACTERS = 16_384
SEEN_WHOLE = """
const box = document.querySelector("#arguments"), last = box.getBoundingClientRect().bottom;
return box.scrollHeight <= box.clientHeight && box.scrollWidth <= box.clientWidth
  && last <= document.querySelector("#approve").getBoundingClientRect().top"""
Call = Callable[[str], httpx.Response]


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(**DESTRUCTIVE)


@pytest.fixture
def key(served: Served, tab: Tab) -> str:
    """A key of ada's that may do everything, and of which nobody knows who holds it."""
    sign_in(tab, served)
    tab.press("label[for='scope-mcp:full']")
    tab.type("#name", "agent")
    tab.press("#create button", "Create key")
    tab.press("#confirm-full")
    made = tab.read("#new-key")
    tab.press("#key-kept")
    return made


def asked(answer: httpx.Response) -> str:
    """Return the path of the page that a refused call was told of."""
    found = re.search(r"/approvals/[0-9a-f]{32}", answer.text)
    assert found, answer.text
    return found[0]


def ask_with(served: Served, key: str, arguments: str, query: str = "") -> str:
    """Make a call with arguments that are written just so, and return the path of its page."""
    assert served.call(key).status_code == 200  # and so the sidecar knows the tools
    message, routing = modern(request("tools/call", {"name": ASKED_ABOUT, "arguments": {"here": 1}}))
    lines = {**routing, "X-API-Key": key, "Accept": "application/json, text/event-stream"}
    body = json.dumps(message).replace('{"here": 1}', arguments)
    lines["Content-Type"] = "application/json"
    return asked(httpx.post(served.url + KEY_ROUTE + query, content=body.encode(), headers=lines, trust_env=False))


def delete(served: Served, key: str, transaction: str) -> httpx.Response:
    return served.call(key, ASKED_ABOUT, id=transaction)


def state(tab: Tab, expected: str) -> None:
    tab.find(f"#state[data-state={expected}]")


def test_a_call_passes_once_after_a_person_saw_it_and_said_so(served: Served, tab: Tab, key: str) -> None:
    path = asked(delete(served, key, "t-42"))
    sign_in(tab, served, path)
    assert urlsplit(tab.driver.current_url).path == path
    assert not urlsplit(tab.driver.current_url).query
    state(tab, "waiting")
    shown = tab.text()
    assert ASKED_ABOUT in shown
    assert '"t-42"' in tab.read("#arguments")
    assert f"the API key key_{key[4:16]}" in shown
    tab.press("#approve")
    state(tab, "approved")
    assert not tab.count("#approve, #decline")
    assert tab.read("#decided-by") == "somebody who signed in as ada"
    assert "/approvals/" not in delete(served, key, "t-42").text
    assert asked(delete(served, key, "t-42")) != path
    sign_in(tab, served, path)
    state(tab, "spent")


def test_a_declined_call_does_not_pass(served: Served, tab: Tab, key: str) -> None:
    path = asked(delete(served, key, "t-1"))
    sign_in(tab, served, path)
    tab.press("#decline")
    state(tab, "declined")
    assert "declined" in delete(served, key, "t-1").text
    assert not tab.count("#approve, #decline")


def test_arguments_that_others_chose_are_shown_and_do_nothing(served: Served, tab: Tab, key: str) -> None:
    text = " ".join(HOSTILE)
    sign_in(tab, served, asked(delete(served, key, text)))
    shown = tab.read("#arguments code")
    for name in HOSTILE:
        assert without_unseen(name).replace('"', '\\"') in without_unseen(shown), name
    assert not re.search(f"[\u202e\u200b\u200d{BLANK}]", shown)
    assert tab.count("main script, main img, main svg, main a") == 0
    assert [complaint for complaint in tab.complaints() if "favicon" not in complaint] == []
    tab.resize(360, 740)
    assert_open_to_all(tab)
    tab.prefer("dark")
    assert tab.barriers() == []


def without_unseen(text: str) -> str:
    """Leave out of a text what cannot be seen or turns the direction, and what of the page's text stands for it."""
    kinds = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
    plain = re.sub(r"\\u[0-9a-f]{4}|\u27e8U\+[0-9A-F]+\u27e9", "", text)
    return "".join(c for c in plain if unicodedata.category(c) not in kinds and c not in BLANK)


def test_neither_white_space_nor_escapes_hide_an_argument(served: Served, tab: Tab, key: str) -> None:
    written = '{"id":"t-1"' + "\n" * 4000 + ',"\\u0061ll_of_them":4.20e1, "note":"' + " " * 4000 + 'x"}'
    sign_in(tab, served, ask_with(served, key, written))
    tab.find("#arguments code")
    lines = tab.run("return document.querySelector('#arguments code').textContent").split("\n")
    assert lines[:3] == ["{", '  "id": "t-1",', '  "all_of_them": 4.20e1,']
    assert lines[3].endswith('\\u0020x"')
    assert len(lines) == 5
    for width in (360, 1200):
        tab.resize(width)
        assert tab.run(SEEN_WHOLE), width


def test_long_arguments_stand_above_the_buttons_whole(served: Served, tab: Tab, key: str) -> None:
    written = json.dumps({f"member {number}": number for number in range(500)})
    sign_in(tab, served, ask_with(served, key, written))
    assert '"member 499": 499' in tab.read("#arguments code")
    assert tab.run(SEEN_WHOLE)


def test_what_the_server_sees_besides_the_arguments_is_shown_too(served: Served, tab: Tab, key: str) -> None:
    sign_in(tab, served, ask_with(served, key, '{"id": "t-1"}', "?project_ref=PRODUCTION&read_only=%3Cb%3E"))
    assert tab.read("#besides").split("\n") == ['query "project_ref": "PRODUCTION"', 'query "read_only": "%3Cb%3E"']
    sign_in(tab, served, ask_with(served, key, '{"id": "t-2"}'))
    tab.find("#arguments code")
    assert not tab.count("#besides")


def test_arguments_that_are_not_shown_whole_are_told_of(served: Served, tab: Tab, key: str) -> None:
    sign_in(tab, served, asked(delete(served, key, "x" * SHOWN_CHARACTERS)))
    assert "the end is missing" in tab.read("[role=alert]")
    assert "x" * (SHOWN_CHARACTERS - len('{"id": "')) in tab.read("#arguments code")
    above = "compareDocumentPosition(document.querySelector('#approve')) & Node.DOCUMENT_POSITION_FOLLOWING"
    assert tab.run(f"return document.querySelector('#arguments ~ [role=alert]').{above}")


def test_the_client_that_made_the_call_can_not_approve_it(served: Served, tab: Tab, key: str) -> None:
    """Here a program got hold of the page's own token, and its person is to say yes with the same client."""
    assert served.call(key).status_code == 200  # and so the sidecar knows the tools
    tab.traffic()
    message, routing = modern(request("tools/call", {"name": ASKED_ABOUT, "arguments": {"id": "t-9"}}))
    lines = {**routing, "Authorization": f"Bearer {tab.token}", "Accept": "application/json, text/event-stream"}
    path = asked(httpx.post(served.url + JWT_ROUTE, json=message, headers=lines, trust_env=False))
    sign_in(tab, served, path)
    assert "does not allow this" in tab.read("[role=alert]")
    assert not tab.count("#approve")


def test_what_is_not_there_is_told_in_words(served: Served, tab: Tab) -> None:
    sign_in(tab, served, "/approvals/" + "0a" * 16)
    assert "no such call for your account" in tab.read("[role=alert]")
    assert tab.barriers() == []


def test_who_was_faster_is_believed_and_the_other_is_told(served: Served, tab: Tab, key: str) -> None:
    path = asked(delete(served, key, "t-3"))
    sign_in(tab, served, path)
    tab.find("#approve")
    served.command("approvals", "decline", path.rpartition("/")[2])
    tab.press("#approve")
    tab.find("[role=alert]")
    state(tab, "declined")
    assert tab.read("#decided-by") == "an operator, by command"


def test_a_sign_in_for_an_approval_leads_back_to_it_and_nowhere_else(served: Served, tab: Tab) -> None:
    """The place to go back to is in storage; whatever is written there, nobody is led astray."""
    tab.open(served.url + "/approvals/" + "0a" * 16)
    tab.press("#sign-in")
    tab.find("#ada")
    at_the_issuer = tab.driver.current_url
    tab.open(f"{served.url}/keys/files/page.css")
    tab.run(
        "const kept = JSON.parse(sessionStorage.getItem('sidecar.sign-in'));"
        "sessionStorage.setItem('sidecar.sign-in', JSON.stringify({...kept, returnTo: '//evil.example/'}))"
    )
    tab.open(at_the_issuer)
    tab.press("#ada")
    assert "not begun in this tab" in tab.read("[role=alert]")
    until(lambda: urlsplit(tab.driver.current_url).path == "/keys")


def test_an_address_that_is_none_is_answered_with_words(served: Served, tab: Tab) -> None:
    tab.open(served.url + "/approvals/0a")
    assert tab.read("h1") == "Not Found"
    assert [complaint for complaint in tab.complaints() if "404" not in complaint] == []
    tab.resize(360, 740)
    assert_open_to_all(tab)
    tab.press("main a", "API keys")
    tab.find("#sign-in")
