"""A browser without a window: Debian's chromium, driven by selenium."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.twistdserver import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
SCREENSHOTS = "DANGAD_SCREENSHOTS"
"""Names the folder for pictures of the pages; without it none are taken."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="chromium and chromedriver are in Debian's packages chromium and chromium-driver",
)


class Browser:
    """One window, and what its console says."""

    def __init__(self, folder: str, scripts: bool = True) -> None:
        """Open it.

        :param folder: for the browser's own files.
        :param scripts: whether JavaScript is on.
        """
        options = Options()
        options.binary_location = CHROMIUM or ""
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            setting = "profile.managed_default_content_settings.javascript"
            options.add_experimental_option("prefs", {setting: 2})
        self.driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        self.resize(1280, 1400)

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Give the window another size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def make_dark(self, dark: bool) -> None:
        """Prefer dark pages, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, address: str) -> None:
        """Open a page."""
        self.driver.get(address)

    def text(self, selector: str = "main") -> str:
        """The text of the first element that the selector finds; nothing if there is none."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        with contextlib.suppress(Exception):  # it was replaced just now
            return found[0].text if found else ""
        return ""

    def all(self, selector: str) -> list[Any]:
        """All elements that the selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, text: str, selector: str = "main") -> None:
        """Wait until the element has this text."""
        wait_for(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def run(self, script: str) -> Any:
        """Run JavaScript in the page; its value."""
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        """What the console says is wrong, since this was asked before."""
        log: Any = self.driver.get_log("browser")
        return [each["message"] for each in log if each["level"] in ("SEVERE", "WARNING")]

    def picture(self, name: str) -> None:
        """Take a picture of the window."""
        folder = os.environ.get(SCREENSHOTS)
        if folder:
            self.driver.save_screenshot(str(Path(folder, f"{name}.png")))


@contextlib.contextmanager
def browser(scripts: bool = True) -> Iterator[Browser]:
    """A browser that is closed in the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        opened = Browser(folder, scripts)
        try:
            yield opened
        finally:
            opened.driver.quit()
