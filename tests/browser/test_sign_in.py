"""Signing in and out in the browser, and everything that must not count as a sign-in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.browser.chromium import Tab
from tests.browser.conftest import Serve
from tests.browser.serving import Served, until
from tests.browser.test_keys import sign_in

pytestmark = pytest.mark.browser

ENTRY = "sidecar.sign-in"


def begun(tab: Tab, served: Served) -> dict[str, str]:
    """Begin to sign in, stop in front of the issuer, and return what the page has kept for the way back."""
    tab.open(f"{served.url}/keys")
    tab.press("#sign-in")
    tab.find("#ada")
    tab.open(f"{served.url}/keys/files/page.css")  # of the page's origin, and no page
    kept: dict[str, str] = json.loads(tab.run("return sessionStorage.getItem(arguments[0])", ENTRY))
    return kept


def come_back(tab: Tab, served: Served, answer: Mapping[str, str]) -> str:
    """Come back from the issuer with this answer, and return what the page says to it."""
    tab.open(f"{served.url}/keys/callback?{urlencode(answer)}")
    said = tab.read("[role=alert]")
    tab.find("#sign-in")
    assert not tab.count("#sign-out")
    assert urlsplit(tab.driver.current_url).path == "/keys"
    assert not urlsplit(tab.driver.current_url).query
    assert tab.run("return sessionStorage.length") == 0
    return said


def test_what_is_asked_of_the_issuer_is_a_code_for_us_alone_that_nobody_else_can_redeem(serve: Serve, tab: Tab) -> None:
    served = serve()
    kept = begun(tab, served)
    tab.traffic()
    [asked] = [parse_qs(urlsplit(url).query) for url in tab.requested if "/auth?" in url]
    assert asked["response_type"] == ["code"]
    assert asked["client_id"] == ["pages"]
    assert asked["redirect_uri"] == [f"{served.url}/keys/callback"]
    assert asked["resource"] == [f"{served.url}/mcp"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["state"] == [kept["state"]]
    assert asked["nonce"] == [kept["nonce"]]
    assert kept["verifier"] not in str(asked)
    assert len({kept["state"], kept["nonce"], kept["verifier"]}) == 3
    assert all(len(kept[name]) == 43 for name in ("state", "nonce", "verifier"))


def test_who_turns_back_at_the_issuer_is_told_so_and_can_try_again(serve: Serve, tab: Tab) -> None:
    served = serve()
    tab.open(f"{served.url}/keys")
    tab.press("#sign-in")
    tab.press("#turn-back")
    assert "not completed" in tab.read("[role=alert]")
    assert urlsplit(tab.driver.current_url).path == "/keys"
    tab.press("#sign-in")
    tab.press("#ada")
    tab.find("#sign-out")


def test_an_answer_that_was_not_asked_for_here_is_refused(serve: Serve, tab: Tab) -> None:
    """Somebody else's code, brought by a link: the person would work in the attacker's account."""
    served = serve()
    answer = {"code": "stolen", "state": "guessed", "iss": served.issuer}
    assert "not begun in this tab" in come_back(tab, served, answer)
    begun(tab, served)
    assert "not begun in this tab" in come_back(tab, served, answer)


def test_an_answer_by_another_issuer_is_refused_before_its_code_is_sent_anywhere(serve: Serve, tab: Tab) -> None:
    """RFC 9207: this provider announces that it names itself, so an answer without a name is another's, too."""
    served = serve()
    for named in ({"iss": "https://evil.example"}, {}, {"iss": served.issuer + "/"}):
        kept = begun(tab, served)
        assert "another issuer" in come_back(tab, served, {"code": "mixed-up", "state": kept["state"], **named})
    tab.traffic()
    assert not any(url.endswith("/token") for url in tab.requested)


def test_a_code_that_the_issuer_does_not_know_signs_nobody_in(serve: Serve, tab: Tab) -> None:
    served = serve()
    kept = begun(tab, served)
    answer = {"code": "x", "state": kept["state"], "iss": served.issuer}
    assert "refused the sign-in" in come_back(tab, served, answer)
    assert "not begun in this tab" in come_back(tab, served, answer)


def test_an_id_token_for_another_sign_in_is_refused(serve: Serve, tab: Tab) -> None:
    """The nonce that comes back is not the one that this tab remembers."""
    served = serve()
    tab.open(f"{served.url}/keys")
    tab.press("#sign-in")
    tab.find("#ada")
    at_the_issuer = tab.driver.current_url
    tab.open(f"{served.url}/keys/files/page.css")
    tab.run(
        "const kept = JSON.parse(sessionStorage.getItem(arguments[0]));"
        "sessionStorage.setItem(arguments[0], JSON.stringify({...kept, nonce: 'another'}))",
        ENTRY,
    )
    tab.open(at_the_issuer)
    tab.press("#ada")
    assert "does not belong to this sign-in" in tab.read("[role=alert]")
    assert not tab.count("#sign-out")


def test_who_signs_out_has_left_nothing_and_must_sign_in_again(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    tab.press("#sign-out")
    tab.find("#sign-in")
    assert "signed out here" in tab.text()
    assert urlsplit(str(tab.find("#end-session").get_attribute("href"))).netloc == urlsplit(served.issuer).netloc
    assert tab.run("return [sessionStorage.length, localStorage.length]") == [0, 0]
    tab.driver.back()
    tab.open(f"{served.url}/keys")
    tab.find("#sign-in")
    assert not tab.count("#sign-out")


def test_a_page_that_is_loaded_again_has_forgotten_its_token(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    tab.driver.refresh()
    tab.find("#sign-in")
    assert not tab.count("#sign-out")


def test_who_went_elsewhere_and_comes_back_must_sign_in_again(serve: Serve, tab: Tab) -> None:
    """Also where the browser has kept the page as it was left."""
    served = serve()
    sign_in(tab, served)
    tab.open("about:blank")
    tab.driver.back()
    tab.find("#sign-in")
    assert not tab.count("#sign-out")


def test_a_token_is_told_on_sign_out_to_the_issuer_that_gave_it_and_a_pasted_one_to_nobody(
    serve: Serve, tab: Tab
) -> None:
    """Where a pasted one came from is not known: it may be live at another issuer than the one where people sign in."""
    served = serve()
    sign_in(tab, served)
    tab.find("#no-keys")
    tab.press("#sign-out")
    assert revocations(tab) == [f"{served.issuer}/token/revocation"]
    sign_in(tab, served)
    tab.find("#no-keys")
    tab.traffic()
    tab.open(f"{served.url}/keys")
    tab.press("summary", "Use an access token instead")
    tab.type("#token", tab.token)
    tab.press("main button", "Use this token")
    tab.find("#no-keys")
    tab.forget()
    tab.press("#sign-out")
    assert revocations(tab) == []


def revocations(tab: Tab) -> list[str]:
    """Return where tokens were revoked on a sign-out, once it is done."""
    tab.find("main p", "You are signed out here")
    tab.traffic()
    return sorted({url for url in tab.requested if "revocation" in url})


def test_a_sign_in_that_has_ended_leads_back_to_the_door(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    served.command("tokens", "revoke", "--account", "ada")
    tab.press("#reload")
    assert "Sign in again" in tab.read("[role=alert]")
    tab.find("#sign-in")
    assert not tab.count("#sign-out")


def test_without_a_client_the_page_says_so_and_takes_a_token_that_it_keeps_nowhere(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    tab.find("#no-keys")
    tab.traffic()
    token = tab.token
    other = serve_without_client(serve, served)
    tab.open(f"{other.url}/keys")
    assert "no client is configured" in tab.read("main")
    assert not tab.count("#sign-in")
    tab.type("#token", "no.token.at-all")
    tab.press("main button", "Use this token")
    assert "Sign in again" in tab.read("[role=alert]")
    tab.type("#token", token)
    tab.press("main button", "Use this token")
    tab.find("#no-keys")
    secret = token.rpartition(".")[2]
    assert secret not in tab.stored()
    assert secret not in tab.run("return document.documentElement.outerHTML + location.href")
    assert secret not in other.log.read_text()
    tab.press("#sign-out")
    tab.find("#token")
    assert tab.find("#token").get_attribute("value") == ""
    assert tab.barriers() == []


def serve_without_client(serve: Serve, served: Served) -> Served:
    served.stop()
    return serve(key_page={"client_id": None})


def test_where_the_issuer_is_away_the_page_says_so_and_a_token_still_opens_it(serve: Serve, tab: Tab) -> None:
    served = serve(jwt={"issuers": [{"issuer": "http://127.0.0.1:9", "jwks_url": "http://127.0.0.1:9/keys"}]})
    tab.open(f"{served.url}/keys")
    assert "can't be reached" in tab.read("[role=alert]")
    tab.press("summary", "Use an access token instead")
    tab.find("#token")
    assert tab.barriers() == []


def test_at_another_name_the_page_leads_to_the_one_where_people_sign_in(serve: Serve, tab: Tab) -> None:
    served = serve()
    tab.open(served.url.replace("127.0.0.1", "localhost") + "/keys")
    tab.press("main a", f"{served.url}/keys")
    tab.find("#sign-in")
    assert tab.driver.current_url == f"{served.url}/keys"


def test_two_tabs_sign_in_without_disturbing_each_other(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    first = tab.driver.current_window_handle
    tab.driver.switch_to.new_window("tab")
    sign_in(tab, served)
    tab.press("#sign-out")
    tab.find("#sign-in")
    tab.driver.switch_to.window(first)
    tab.press("#reload")
    until(lambda: tab.count("#no-keys") and tab.count("#sign-out"))
