"""Pages in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# `act` is an async function of the caller's; what it returns comes back in an attribute, as base64 of JSON in UTF-8.
_BEGIN = """
window.addEventListener("error", event => { document.title = `broken: ${event.message}`; });
act().catch(error => ({ error: String(error.stack) })).then(result => {
  const bytes = new TextEncoder().encode(JSON.stringify(result));
  document.body.dataset.result = btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
});
"""


def act_in_browser(html: str, actions: str, folder: Path) -> Any:
    """Open a page in headless Chromium and act on it; the test is skipped where no browser is installed.

    Args:
        html: the page.
        actions: JavaScript with an async function `act`, whose result must fit JSON.
        folder: where the page and the browser's profile go.

    Returns:
        What `act` returned.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed: the page's script is not run")
    acted = folder / "acted.html"
    acted.write_text(html.replace("</body>", f"<script>{actions}{_BEGIN}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=5000", "--dump-dom", acted.as_uri()],
        capture_output=True,
        timeout=60,
        check=True,
    )
    dom = done.stdout.decode()
    assert "<title>broken" not in dom, dom[:400]
    found = re.search(r'data-result="([^"]+)"', dom)
    assert found is not None, done.stderr.decode()[-2000:]
    result = json.loads(base64.b64decode(found.group(1)))
    assert not (isinstance(result, dict) and "error" in result), result["error"]
    return result
