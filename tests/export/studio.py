"""How tests look at the studio: waiting until it is ready, and until it has answered; and whether its answers are the runtime's."""

import io

import numpy as np
import pytest

from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.bundle import Bundle

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


ANSWER = """async pixels => {
    const a = await catvae.answer(Uint8Array.from(pixels));
    return [[...a.assignment], [...a.mean], a.cluster, a.classes, [...a.rebuilt], a.score, a.unknown];
}"""


def same_answers(page, bundle: Bundle) -> None:
    with np.load(io.BytesIO(bundle.golden())) as golden:
        images, latents = golden["image"], golden["latent"]
    assignments = bundle.predict_proba(images)
    clusters, confidence = bundle.decide(assignments)
    rebuilt, scored = bundle.decode(bundle.transform(images)), bundle.examine(images, score=True)
    assert scored.score is not None
    for i, mean in enumerate(bundle.transform(images)):
        assignment, found_mean, cluster, classes, made, score, unknown = page.evaluate(ANSWER, images[i].ravel().tolist())
        np.testing.assert_allclose(made, rebuilt[i].ravel(), rtol=0, atol=1e-5)
        assert score == pytest.approx(scored.score[i], rel=1e-4)
        assert unknown == (scored.clusters[i] == UNKNOWN)
        np.testing.assert_allclose(assignment, assignments[i], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found_mean, mean, rtol=0, atol=1e-5)
        assert cluster == clusters[i]
        assert classes[0]["name"] == bundle.names[clusters[i]]
        assert classes[0]["share"] == pytest.approx(confidence[i], abs=1e-5)
        assert sum(entry["share"] for entry in classes) == pytest.approx(1, abs=1e-5)
    decoded = page.evaluate("async z => (await catvae.decode(z.map(p => Float32Array.from(p)))).map(p => [...p])", latents.tolist())
    np.testing.assert_allclose(np.array(decoded), bundle.decode(latents).reshape(len(latents), -1), rtol=0, atol=1e-5)
