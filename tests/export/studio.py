"""How tests look at the studio: waiting until it is ready, and until it has answered."""

WAIT = 60_000


def serious(message) -> bool:
    """Errors and warnings, but for one that these tests cause themselves by reading canvases."""
    return message.type in ("error", "warning") and "willReadFrequently" not in message.text


def settled(page) -> None:
    """Wait until the page has answered all that was asked of it; events that it answers at once have marked it busy by now."""
    page.wait_for_timeout(30)
    page.wait_for_selector("#app:not([aria-busy=true])", state="attached", timeout=WAIT)


def ready(page):
    page.wait_for_selector("html[data-ready]", timeout=WAIT)
    settled(page)
    return page
