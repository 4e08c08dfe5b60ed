"""The key page, used as people use it: sign in, make a key, use it, replace it, end it."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Keys

from tests.browser.chromium import Tab
from tests.browser.conftest import Serve
from tests.browser.serving import Served, until
from tests.interop.node_programs import environment
from tests.redis_server import RedisServer

pytestmark = pytest.mark.browser

FIRST_LOAD_BYTES = 100 * 1024
WIDER_THAN_ITS_WINDOW = "return document.documentElement.scrollWidth > innerWidth"
BLANK = "\u3164\u115f\u2800\ufe0f\U000e0100"
"""Letters, symbols and marks by their category, and nobody sees them."""
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>{{7*7}}${7*7}',
    "javascript:alert(1)",
    "' onmouseover=alert(1) x='",
    "a\u202egnp.exe",
    "\u200b\u200bzero",
    "\U0001f469\u200d\U0001f4bb " + "W" * 90,
    f"nothing{BLANK}",
)


def visible(name: str) -> str:
    """Write a name as the page shows it: what cannot be seen, or turns the direction, by its number."""
    kinds = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
    return "".join(f"\u27e8U+{ord(c):04X}\u27e9" if unicodedata.category(c) in kinds or c in BLANK else c for c in name)


def keys(tab: Tab, *pressed: str) -> None:
    ActionChains(tab.driver).send_keys(*pressed).perform()


def focused(tab: Tab, selector: str) -> bool:
    return bool(tab.run("return document.activeElement.matches(arguments[0])", selector))


def sign_in(tab: Tab, served: Served, path: str = "/keys") -> None:
    """Sign in as ada; who is signed in at the issuer already is not asked again."""
    tab.open(served.url + path)
    tab.press("#sign-in")
    until(lambda: tab.count("#ada") or tab.count("#sign-out"))
    if tab.count("#ada"):
        tab.press("#ada")
    tab.find("#sign-out")


def make(tab: Tab, name: str) -> str:
    """Make a key as proposed, and return it."""
    tab.type("#name", name)
    tab.press("#create button", "Create key")
    key = tab.read("#new-key")
    tab.press("#key-kept")
    tab.gone("dialog")
    return key


def row(tab: Tab, name: str) -> str:
    """Wait for a key in the list; return the selector of its row."""
    found = tab.with_element("#keys > li", name, lambda element: element.get_attribute("data-id"))
    return f'[data-id="{found}"]'


def test_a_key_is_made_used_seen_in_use_replaced_and_ended(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    assert "Signed in as ada" in tab.text()
    tab.find("#no-keys")

    old = make(tab, "nightly report")
    assert old not in tab.run("return document.documentElement.outerHTML")
    line = row(tab, "nightly report")
    assert tab.read(f"{line} code") == old[:16]
    assert tab.read(f"{line} .last-used") == "never"

    assert served.call(old).status_code == 200
    until(lambda: tab.read(f"{line} .last-used") != "never", step=lambda: tab.press("#reload"))

    tab.press(f"{line} button", "Rotate")
    assert "nightly report" in tab.read("dialog")
    assert tab.find("#grace").get_attribute("value") == "2"
    tab.press("dialog [data-yes]")
    new = tab.read("#new-key")
    assert "still works for 2 seconds" in tab.read("dialog")
    tab.press("#key-kept")
    assert new != old
    assert served.call(new).status_code == 200
    until(lambda: served.call(old).status_code == 401)

    tab.press("#reload")
    until(lambda: len(tab.driver.find_elements("css selector", "#keys > li.active")) == 1)
    line = row(tab, "nightly report")
    tab.press(f"{line} button", "Revoke")
    assert "nightly report" in tab.read("dialog")
    tab.press("dialog [data-yes]")
    tab.gone("dialog")
    assert served.call(new).status_code == 401
    tab.find("#no-keys")
    tab.press("#show-all")
    assert "revoked" in tab.read(line)
    assert not tab.count("#keys button")
    assert_no_secret(tab, served, [old, new])


def assert_no_secret(tab: Tab, served: Served, secrets: list[str]) -> None:
    """Search what the page has left behind: addresses, storage, the log."""
    tab.traffic()
    stored, log = tab.stored(), served.log.read_text()
    codes = [url.partition("code=")[2].partition("&")[0] for url in tab.requested if "/callback?" in url]
    assert codes
    for secret in (*(key[16:] for key in secrets), *codes):
        assert secret not in stored
        assert secret not in log
        assert secret not in tab.driver.current_url
    for key in secrets:
        assert not any(key[16:] in url for url in tab.requested)
    assert tab.run("return [sessionStorage.length, localStorage.length]") == [0, 0]


def test_only_we_and_the_issuer_are_asked_and_the_page_is_small(serve: Serve, tab: Tab) -> None:
    served = serve()
    tab.open(f"{served.url}/keys")
    tab.find("#sign-in")
    tab.traffic()
    assert 0 < tab.received_bytes < FIRST_LOAD_BYTES
    assert all(url.startswith(f"{served.url}/keys") for url in tab.requested), tab.requested
    tab.press("#sign-in")
    tab.press("#ada")
    make(tab, "x")
    tab.traffic()
    origins = {"/".join(url.split("/")[:3]) for url in tab.requested if not url.startswith("chrome")}
    assert origins == {served.url, served.issuer}
    assert [complaint for complaint in tab.complaints() if "favicon" not in complaint] == []
    ours = [answer for answer in tab.answers if answer["url"].startswith(served.url)]
    assert not any("set-cookie" in {name.lower() for name in answer["headers"]} for answer in ours)


def test_nothing_that_the_policy_forbids_can_be_done_in_the_page(serve: Serve, tab: Tab) -> None:
    """The policy is what holds if everything else fails: so it is tried, not read."""
    served = serve()
    tab.open(f"{served.url}/keys")
    tab.find("#sign-in")
    blocked = (
        "return new Promise((done) => { document.addEventListener('securitypolicyviolation',"
        " (event) => done(event.effectiveDirective), {once: true}); try { %s } catch { }"
        " setTimeout(() => done('allowed'), 2000) })"
    )
    for attempt, directive in (
        ("fetch('http://127.0.0.1:1/x').catch(() => 0)", "connect-src"),
        (
            "document.head.append(Object.assign(document.createElement('script'), {text: ''}))",
            "require-trusted-types-for",
        ),
        ("document.body.setAttribute('style', 'color: red')", "style-src-attr"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:1/x.png'}))", "img-src"),
        ("document.body.append(Object.assign(document.createElement('iframe'), {src: '/keys'}))", "frame-src"),
        ("document.body.innerHTML = '<b>x</b>'", "require-trusted-types-for"),
    ):
        assert tab.run(blocked % attempt) == directive, attempt


def test_the_page_is_framed_by_nobody(serve: Serve, tab: Tab, tmp_path: Path) -> None:
    served = serve()
    frame = tmp_path / "frame.html"
    frame.write_text(f'<!doctype html><iframe src="{served.url}/keys" id="f"></iframe>')
    tab.open(f"file://{frame}")
    until(lambda: any("frame-ancestors" in complaint for complaint in tab.complaints()))


def test_the_use_of_a_key_is_drawn_and_said_and_what_is_unusual_is_told_in_words(serve: Serve, tab: Tab) -> None:
    served = serve(api_keys={"unusual": {"min_refused": 16}})
    sign_in(tab, served)
    key = make(tab, "busy")
    line = row(tab, "busy")
    assert "No use in the last 7 days." in tab.read(line)
    for _ in range(3):
        assert served.call(key).status_code == 200
    for _ in range(16):
        assert served.call(key, "delete_transaction", id="x").status_code == 403
    until(lambda: tab.count(f"{line} .unusual"), step=lambda: reload(tab))
    assert "3 requests, of these 0 writes, and 16 refused" in tab.read(f"{line} figcaption")
    assert "Unusual: 16 refused requests in the hour from " in tab.read(f"{line} .unusual")
    assert tab.count(f"{line} svg .reads") == tab.count(f"{line} svg .refused") == 1
    assert "3 requests, 0 writes, 16 refused." in str(tab.find(f"{line} svg").get_attribute("aria-label"))
    assert_open_to_all(tab)


def reload(tab: Tab) -> None:
    """Have the list read again, and wait for it."""
    tab.press("#reload")
    tab.find("#list[aria-busy=false]")


@pytest.mark.parametrize("number", [1, 500])
def test_any_number_of_keys_is_shown(serve: Serve, tab: Tab, number: int) -> None:
    served = serve()
    served.make(*[f"key {index}" for index in range(number)])
    sign_in(tab, served)
    until(lambda: tab.count("#keys > li") == number)
    assert f"Your keys ({number} active)" in tab.text()
    assert tab.run(WIDER_THAN_ITS_WINDOW) is False


def test_a_key_that_expires_soon_is_marked_from_14_days_before(serve: Serve, tab: Tab) -> None:
    served = serve()
    served.make("soon", days=14)
    served.make("later", days=16)
    sign_in(tab, served)
    assert "expires in 13 days" in tab.read("#keys > li", "soon")
    assert "expires in" not in tab.read("#keys > li", "later")


def test_names_that_others_chose_are_shown_and_do_nothing(serve: Serve, tab: Tab) -> None:
    served = serve()
    served.make(*HOSTILE)
    sign_in(tab, served)
    until(lambda: tab.count("#keys > li") == len(HOSTILE))
    shown = [element.text for element in tab.driver.find_elements("css selector", "#keys h3 bdi")]
    assert shown[::-1] == [visible(name) for name in HOSTILE]
    assert tab.count("main script, main img, main svg, main a") == 0
    for name in HOSTILE[:5]:
        tab.press(f"{row(tab, name)} button", "Revoke")
        assert f"The key {name} " in tab.read("dialog")
        tab.press("dialog button", "Cancel")
        tab.gone("dialog")
    assert [complaint for complaint in tab.complaints() if "favicon" not in complaint] == []


def test_a_key_that_may_do_everything_takes_a_second_step(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    tab.type("#name", "all powerful")
    tab.press("label[for='scope-mcp:full']")
    tab.press("#create button", "Create key")
    assert "all powerful" in tab.read("dialog", "A key that can do everything?")
    assert tab.run("return document.activeElement.textContent") == "Back"
    tab.press("dialog button", "Back")
    tab.gone("dialog")
    tab.find("#no-keys")
    tab.press("#create button", "Create key")
    tab.press("#confirm-full")
    tab.find("#new-key")
    tab.press("#key-kept")
    assert "mcp:full" in tab.read("#keys > li", "all powerful")


def test_the_least_scope_comes_first_and_each_has_its_sentence(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    labels = [element.text for element in tab.driver.find_elements("css selector", "#create fieldset label")]
    assert labels == ["mcp:tools:list", "mcp:tools:call", "mcp:resources:read", "mcp:read", "mcp:full"]
    sentences = [element.text for element in tab.driver.find_elements("css selector", "#create fieldset .hint")]
    assert all(sentence.endswith(".") for sentence in sentences)
    assert len(set(sentences)) == len(labels)
    assert tab.run("return [...document.querySelectorAll('#create :checked')].map((box) => box.value)") == ["mcp:read"]
    assert tab.find("#days").get_attribute("value") == "90"


def test_a_key_is_copied_with_its_examples_and_these_work(serve: Serve, tab: Tab) -> None:
    served = serve()
    sign_in(tab, served)
    tab.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    tab.type("#name", "examples")
    tab.press("#create button", "Create key")
    key = tab.read("#new-key")
    tab.press("button.copy", "Copy the key")
    tab.find("button.copy", "Copied")
    assert tab.run("return navigator.clipboard.readText()") == key
    assert served.call(key).status_code == 200  # and so the sidecar knows the tools
    tab.press("[data-snippet='curl'] summary")
    done = subprocess.run(
        ["bash", "-c", tab.read("[data-snippet='curl'] code")], capture_output=True, text=True, check=True
    )
    assert '"serverInfo"' in done.stdout, done.stdout
    tab.press("[data-snippet='Python'] summary")
    program = tab.read("[data-snippet='Python'] code")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert "get_balance" in done.stdout.split()
    tab.press("[data-snippet='mcp-remote'] summary")
    remote = json.loads(tab.read("[data-snippet='mcp-remote'] code"))
    assert remote["mcpServers"]["127.0.0.1"]["env"] == {"MCP_KEY": key}
    tab.press("[data-snippet='MCP Inspector'] summary")
    inspector = tab.read("[data-snippet='MCP Inspector'] code").replace(
        "npx @modelcontextprotocol/inspector", "mcp-inspector"
    )
    done = subprocess.run(
        ["bash", "-c", inspector], capture_output=True, text=True, check=True, env=environment(), timeout=60
    )
    assert "get_balance" in done.stdout


def test_what_the_sidecar_refuses_is_said_in_words(serve: Serve, tab: Tab, issuer_url: str) -> None:
    served = serve(jwt={"issuers": [{"issuer": issuer_url, "default_scopes": ["mcp:tools:list"]}]})
    sign_in(tab, served)
    tab.type("#name", "too much")
    tab.press("#create button", "Create key")
    assert "does not" in tab.read("#create [role=alert]")
    assert tab.find("#name").get_attribute("value") == "too much"


def test_while_the_store_is_away_the_page_says_so_and_goes_on_when_it_is_back(
    serve: Serve, tab: Tab, redis_server: RedisServer
) -> None:
    served = serve()
    served.make("kept")
    sign_in(tab, served)
    row(tab, "kept")
    redis_server.pause()
    tab.press("#reload")
    assert "can't do this just now" in tab.read("#list [role=alert]")
    redis_server.resume()
    until(lambda: tab.count("#keys > li"), step=lambda: try_again(tab))


def try_again(tab: Tab) -> None:
    tab.find("#list[aria-busy=false]")
    if tab.count("#list > p button"):
        tab.press("#list > p button", "Try again")


def test_it_is_done_with_the_keyboard_alone(serve: Serve, tab: Tab) -> None:
    served = serve()
    tab.open(f"{served.url}/keys")
    tab.find("#sign-in")
    keys(tab, Keys.TAB, Keys.ENTER)
    tab.press("#ada")
    tab.find("#no-keys")
    until(lambda: focused(tab, "#name"), step=lambda: keys(tab, Keys.TAB))
    keys(tab, "by hand")
    until(lambda: focused(tab, "#create button"), step=lambda: keys(tab, Keys.TAB))
    keys(tab, Keys.ENTER)
    tab.find("#new-key")
    keys(tab, Keys.ESCAPE, Keys.ESCAPE)
    tab.find("#new-key")
    until(lambda: focused(tab, "#key-kept"), step=lambda: keys(tab, Keys.TAB))
    keys(tab, Keys.ENTER)
    tab.gone("dialog")
    line = row(tab, "by hand")
    until(lambda: focused(tab, f"{line} button.danger"), step=lambda: keys(tab, Keys.TAB))
    keys(tab, Keys.ENTER)
    tab.find("dialog")
    keys(tab, Keys.ESCAPE)
    tab.gone("dialog")
    assert focused(tab, f"{line} button.danger")
    keys(tab, Keys.ENTER)
    tab.find("dialog")
    until(lambda: focused(tab, "dialog [data-yes]"), step=lambda: keys(tab, Keys.TAB))
    keys(tab, Keys.ENTER)
    tab.find("#no-keys")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out_and_a_narrow_window_is_enough(serve: Serve, tab: Tab, scheme: str) -> None:
    served = serve()
    served.make("soon", *HOSTILE, days=3)
    tab.prefer(scheme)
    tab.resize(360, 740)
    tab.open(f"{served.url}/keys")
    tab.find("#sign-in")
    assert_open_to_all(tab)
    sign_in(tab, served)
    line = row(tab, "soon")
    assert_open_to_all(tab)
    for button in ("Rotate", "Revoke"):
        tab.press(f"{line} button", button)
        tab.find("dialog")
        assert_open_to_all(tab)
        tab.press("dialog button", "Cancel")
        tab.gone("dialog")
    tab.type("#name", "x")
    tab.press("label[for='scope-mcp:full']")
    tab.press("#create button", "Create key")
    assert_open_to_all(tab)
    tab.press("#confirm-full")
    tab.press("[data-snippet='Python'] summary")
    assert_open_to_all(tab)
    dark = tab.run("return getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


def assert_open_to_all(tab: Tab) -> None:
    assert tab.barriers() == []
    assert tab.run(WIDER_THAN_ITS_WINDOW) is False
