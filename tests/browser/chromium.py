"""A real Chromium, driven as a person at a keyboard would be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.browser.serving import until
from tests.interop.node_programs import MODULES

PROGRAMS: Final = ("chromium", "chromedriver")
SERIOUS: Final = ("serious", "critical")


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Tab:
    """One tab of a browser that nobody has used before."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.requested: list[str] = []
        """The addresses of all requests so far, in order; brought up to date by `traffic`."""
        self.answers: list[dict[str, Any]] = []
        """What came back, as the browser saw it: `url`, `status`, `headers`."""
        self.token = ""
        """The access token that was sent last."""
        self.received_bytes = 0

    def renew(self) -> None:
        """Become a tab of a browser that nobody has used before: the next test knows nothing of this one."""
        used = self.driver.window_handles
        self.driver.switch_to.new_window("tab")
        fresh = self.driver.current_window_handle
        for handle in used:
            self.driver.switch_to.window(handle)
            self.driver.close()
        self.driver.switch_to.window(fresh)
        self.cdp("Network.clearBrowserCookies")
        self.cdp("Network.clearBrowserCache")
        self.cdp("Browser.resetPermissions")
        self.traffic()
        self.complaints()
        self.forget()

    def forget(self) -> None:
        """Forget what was noted of the traffic so far."""
        self.requested.clear()
        self.answers.clear()
        self.token, self.received_bytes = "", 0

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str, text: str = "") -> WebElement:
        """Wait for an element that is shown, with this text in it."""
        element: WebElement = self.with_element(selector, text, lambda element: element)
        return element

    def read(self, selector: str, text: str = "") -> str:
        """Wait for an element that is shown, with this text in it, and return all its text."""
        return str(self.with_element(selector, text, lambda element: element.text))

    def press(self, selector: str, text: str = "") -> None:
        """Press a button or follow a link, as soon as it is there."""

        def pressed(element: WebElement) -> bool:
            element.click()
            return True

        self.with_element(selector, text, pressed)

    def with_element(self, selector: str, text: str, act: Callable[[WebElement], Any]) -> Any:
        """Do something with an element as soon as there is one; what the page redraws meanwhile is looked for again."""

        def look() -> Any:
            try:
                found = self.driver.find_elements(By.CSS_SELECTOR, selector)
                shown = next((one for one in found if one.is_displayed() and text in one.text), None)
                return None if shown is None else act(shown)
            except StaleElementReferenceException:
                return None

        try:
            return until(look)
        except AssertionError:
            raise AssertionError(f"no {selector!r} with {text!r} in: {self.text()}") from None

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def gone(self, selector: str) -> None:
        until(lambda: not self.count(selector))

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def stored(self) -> str:
        """Return everything that pages of this origin have stored, as text."""
        script = "return JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, history.state])"
        return str(self.run(script)) + json.dumps(self.driver.get_cookies())

    def traffic(self) -> None:
        """Take note of what has been sent and received so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            params = message["params"]
            match message["method"]:
                case "Network.requestWillBeSent":
                    self.requested.append(params["request"]["url"])
                    sent = params["request"]["headers"].get("Authorization", "")
                    self.token = sent.removeprefix("Bearer ") or self.token
                case "Network.responseReceived":
                    self.answers.append(params["response"])
                case "Network.loadingFinished":
                    self.received_bytes += params["encodedDataLength"]

    def complaints(self) -> list[str]:
        """Return what the browser has complained of in its console, such as breaches of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def barriers(self) -> list[str]:
        """Return what keeps people out, as axe-core sees it: what is serious or worse."""
        self.run((MODULES / "axe-core" / "axe.min.js").read_text())
        found = self.driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        return [
            f"{each['id']}: {[node['html'] for node in each['nodes']]}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
        ]

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page this many CSS pixels."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cdp(self, command: str, **given: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, given)


@contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """Run a browser with a profile of its own, without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.add_argument("--no-proxy-server")
    options.add_argument("--lang=en-GB")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield Tab(driver)
    finally:
        driver.quit()
