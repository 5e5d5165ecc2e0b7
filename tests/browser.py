"""A real Chromium and a plain web server, for tests of pages; where they are not installed, those tests are skipped."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextlib.contextmanager
def chromium() -> Iterator:
    """A browser of playwright, driving the system's Chromium; with CATVAE_NEED_BROWSER set its absence is a failure, else a skip."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        if os.environ.get("CATVAE_NEED_BROWSER"):
            pytest.fail("no Chromium or no playwright here")
        pytest.skip("needs Chromium and playwright")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder: Path, types: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> Iterator[str]:
    """The address of `folder` on this machine; `types` replaces MIME types by suffix, `headers` go out with every answer."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def end_headers(self):
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

    Handler.extensions_map = {**Handler.extensions_map, ".mjs": "text/javascript", **(types or {})}

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
