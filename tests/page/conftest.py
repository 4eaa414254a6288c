"""A headless Chromium that opens the page from a folder, as a reader does."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_ham.page.site import default_models, site_files, write_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT = 20_000  # milliseconds; a busy machine may be slow


@pytest.fixture(scope="session")
def models() -> list[tuple[str, Any]]:
    """The models of the page, with their names, in plain PyTorch, which compiles nothing."""
    models = default_models()
    for _, model in models:
        if model.accesses_per_output:
            model.controller.memory.engine = "reference"
    return models


@pytest.fixture(scope="session")
def site(models: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to open of a page with all models."""
    return write_site(site_files(models), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; where there is none, tests are skipped, but fail in CI, which installs it."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("Expected Chromium on the path, but found none; install Debian's package chromium.")
    assert CHROMIUM is not None, "Expected Chromium on the path in CI, but found none."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """The page in a tab, with all that it asked for and complained of."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, place: str = "") -> None:
        """Open the page anew at a place such as ``#ham-sort``, and wait until all is computed."""
        self.page.goto("about:blank")
        self.page.goto(self.address + place)
        self.settle()

    def settle(self) -> None:
        """Wait until all networks have put out everything."""
        self.page.wait_for_function("!document.querySelector('#verdict').textContent.includes('computed')")

    def text(self, selector: str) -> str:
        return self.page.text_content(selector)

    def enter(self, instance: str) -> None:
        """Type an instance, and press Enter."""
        self.page.fill("#instance", instance)
        self.page.press("#instance", "Enter")
        self.settle()

    def row(self, number: int) -> list[str]:
        """The words in a row of the table of outputs."""
        return self.page.locator(f"#outputs tbody tr:nth-child({number}) td").all_inner_texts()


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Callable[..., Visit]]:
    """Make a new visitor at a place of the page, with any of Playwright's options, such as a viewport."""
    contexts = []

    def make(place: str = "", **options: Any) -> Visit:
        contexts.append(browser.new_context(**options))
        made = Visit(contexts[-1].new_page(), site.as_uri())
        made.open(place)
        return made

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def once(browser: Any, site: Path) -> Iterator[Visit]:
    """One visitor for all tests of a module, at the start of the page."""
    page = browser.new_page()
    made = Visit(page, site.as_uri())
    made.open()
    yield made
    page.close()
