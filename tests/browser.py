"""A real browser, where there is one."""

import contextlib
import shutil

import pytest
from selenium import webdriver

needs_chromium = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs chromium and chromedriver",
)


@contextlib.contextmanager
def chromium(*arguments, log=False):
    """A browser without a window, with more ``arguments``; one that keeps a ``log`` of its requests."""
    options = webdriver.ChromeOptions()
    if log:
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1300,900", *arguments):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def screenshots(request):
    """Keeps a picture of the page, where it was asked for (``--screenshots FOLDER``)."""
    folder = request.config.getoption("--screenshots")

    def keep(browser, name):
        if folder is not None:
            browser.save_screenshot(f"{folder}/{name}.png")

    return keep
