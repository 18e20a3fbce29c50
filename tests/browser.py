"""A real browser for tests: one that the machine has, or Playwright's own; without one a failure in CI, else a skip."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root Chromium wants no sandbox; and it must not look for updates and the like: nothing may leave this machine.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, NAMES)), None) or (str(own) if own.exists() else None)
        if found is None:
            refuse()
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def refuse():
    """Fail in CI, where nobody would miss a skipped test; skip elsewhere, with the reason."""
    own = "`python -m playwright install chromium`"
    told = f"no browser: none of {', '.join(NAMES)} is installed, nor Playwright's own ({own})"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(f"THE REPORT IS NOT TESTED IN A BROWSER: {told}")
