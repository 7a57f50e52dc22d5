"""One browser for all of these tests: Debian's chromium, driven by playwright."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from needs import REQUIRED, need


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = need("playwright.sync_api", "browser")
    chromium = shutil.which("chromium")
    if chromium is None and "browser" not in REQUIRED:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
