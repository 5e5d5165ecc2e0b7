"""Bundles: what they answer, and what is refused before a single byte of a graph is run."""

import hashlib
import os
import shutil
import signal
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catvae.runtime.bundles.answers import UNKNOWN
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.errors import DataError, DeviceError, UsageError

from ..fuzzing import model_id


@pytest.fixture(scope="module")
def images(bundle):
    return np.random.default_rng(0).integers(0, 256, (9, *bundle.preprocess.shape), dtype=np.uint8)


def test_answers_have_the_documented_shapes(bundle, images):
    clusters = len(bundle.names)
    a = bundle.predict_proba(images)
    assert a.shape == (9, clusters)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a.sum(1), 1, atol=1e-5)
    assert np.array_equal(bundle.predict(images), a.argmax(1))
    assert bundle.transform(images).shape == (9, bundle.manifest.latent)
    drawn = bundle.sample(cluster=3, n=4, seed=7)
    assert drawn.shape == (4, *bundle.preprocess.shape)
    assert 0 <= drawn.min() <= drawn.max() <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_process_forked_while_a_session_is_made_makes_its_own(bundle):
    fresh = Bundle.load(PRETRAINED / "digits")
    entered, leave = threading.Event(), threading.Event()

    def hold(_role):
        entered.set()
        leave.wait(10)
        return "session"

    fresh._make_session = hold
    worker = threading.Thread(target=fresh.session, args=("classifier",))
    worker.start()
    entered.wait()
    child = os.fork()
    if not child:
        fresh._make_session = lambda _role: "own"
        signal.alarm(10)
        os._exit(0 if fresh.session("classifier") == "own" else 1)
    leave.set()
    worker.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_answers_do_not_depend_on_batch_size_or_order(bundle, images):
    whole = bundle.predict_proba(images)
    assert np.array_equal(whole, bundle.predict_proba(images, batch_size=1))
    assert np.array_equal(whole[::-1], bundle.predict_proba(images[::-1]))


def test_threads_share_a_bundle(bundle, images):
    """A fresh bundle, asked everything at once: one session for each graph, and everyone's answers are those of one thread."""
    fresh, together, answers = Bundle.load(PRETRAINED / "digits"), threading.Barrier(8), {}

    def ask(who: Bundle) -> list:
        return [who.predict_proba(images), who.transform(images), who.score_samples(images), who.sample(3, 2, seed=1)]

    def work(number: int) -> None:
        together.wait()
        answers[number] = [ask(fresh) for _ in range(5)]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = ask(bundle)
    assert sorted(answers) == list(range(8))
    assert all(np.array_equal(a, b) for asked in answers.values() for found in asked for a, b in zip(found, expected, strict=True))
    assert len(fresh._sessions) == 3


def test_no_images_give_no_rows(bundle):
    empty = np.zeros((0, *bundle.preprocess.shape), np.uint8)
    assert bundle.predict_proba(empty).shape == (0, len(bundle.names))


def test_the_pretrained_bundle_recognises_what_it_draws(bundle):
    """A cluster's centre, drawn and classified again, must land in that cluster: graphs, latents and names belong together."""
    centres = np.round(bundle.decode(bundle.means) * 255).astype(np.uint8)
    assert np.array_equal(bundle.predict(centres), np.arange(len(bundle.names)))


def test_golden_answers_are_reproduced(bundle):
    with np.load(bundle.path / bundle.manifest.golden.name) as golden:
        found = {
            "classifier.assignment": bundle.predict_proba(golden["image"]),
            "encoder.mean": bundle.transform(golden["image"]),
            "decoder.image": bundle.decode(golden["latent"]),
        }
        for name, values in found.items():
            difference = np.abs(values - golden[name]) / np.maximum(1, np.abs(golden[name]))
            assert difference.max() <= bundle.manifest.tolerances["cpu"], name


@pytest.mark.parametrize("wrong", [np.zeros((2, 28, 28, 1)), np.zeros((2, 27, 28, 1), np.uint8), np.zeros((28, 28), np.uint8)])
def test_wrong_images_are_usage_errors(bundle, wrong):
    with pytest.raises(UsageError, match=r"uint8 \(N, 28, 28, 1\)"):
        bundle.predict(wrong)


def test_wrong_latents_and_clusters(bundle):
    with pytest.raises(UsageError, match="latents must be"):
        bundle.decode(np.zeros((1, 3), np.float32))
    with pytest.raises(UsageError, match="cluster 10 does not exist"):
        bundle.sample(10)
    for n, seed, wrong in (
        (-1, 0, "n is -1"),
        (1, -1, "seed is -1"),
        (2.5, 0, "n is 2.5"),
        (True, 0, "n is True"),
        (1, None, "seed is None"),
    ):
        with pytest.raises(UsageError, match=f"{wrong}, expected a whole number from 0 on"):
            bundle.sample(0, n, seed)
    with pytest.raises(UsageError, match="cluster is True, expected a number"):
        bundle.sample(True)
    for wrong in (np.nan, np.inf):
        with pytest.raises(UsageError, match="latents must be finite"):
            bundle.decode(np.full((1, bundle.manifest.latent), wrong))
    with pytest.raises(UsageError, match="latents must be numbers"):
        bundle.decode([["a"]])
    for assignment in (np.ones((2, 3)), np.ones(10)):
        with pytest.raises(UsageError, match=r"assignments must be \(N, 10\)"):
            bundle.decide(assignment)
    assert bundle.sample(0, 0).shape == (0, 28, 28, 1)


def test_mistakes_with_images_and_clusters_say_what_to_do_instead(bundle, images):
    for wrong, hint in (
        (images[0], r"images\[None\]"),
        ("three.png", r"bundle\.read"),
        (images / 255.0, "astype"),
    ):
        with pytest.raises(UsageError, match=hint):
            bundle.predict(wrong)
    with pytest.raises(UsageError, match=r"Bundle\.names"):
        bundle.sample(cluster="3")


def test_a_run_or_a_file_is_not_taken_for_a_bundle(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(DataError, match="is a run, not a bundle: catvae-export --onnx"):
        Bundle.load(tmp_path / "run")
    with pytest.raises(DataError, match="it is a file"):
        Bundle.load(tmp_path / "run" / "run.json")


def test_an_empty_path_is_not_the_default(monkeypatch):
    monkeypatch.delenv("CATVAE_BUNDLE", raising=False)
    with pytest.raises(UsageError, match="path is empty"):
        Bundle.load("")
    assert Bundle.load(None).path == PRETRAINED / "digits"


def test_missing_folder_and_files(tmp_path, copy):
    with pytest.raises(DataError, match="no such folder"):
        Bundle.load(tmp_path / "none")
    folder, _ = copy
    (folder / "encoder.onnx").unlink()
    with pytest.raises(DataError, match=r"encoder\.onnx is missing"):
        Bundle.load(folder)


@settings(max_examples=25)
@given(st.sampled_from(["classifier", "encoder", "decoder"]), st.data())
def test_any_flipped_byte_is_noticed(tmp_path_factory, role, data):
    folder = tmp_path_factory.mktemp("flip") / "bundle"
    shutil.copytree(PRETRAINED / "digits", folder)
    path = folder / f"{role}.onnx"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(DataError, match="not the file the manifest names"):
        Bundle.load(folder)


def test_many_images_are_examined_a_few_at_a_time(bundle, images, monkeypatch):
    expected = bundle.examine(images, embed=True, score=True)
    monkeypatch.setattr("catvae.runtime.bundles.bundle.EXAMINED", 2)
    found = bundle.examine(images, embed=True, score=True)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert bundle.examine(images).embedding is None
    assert bundle.examine(images[:0], score=True).assignment.shape == (0, 10)


def test_a_device_is_insisted_on_or_refused_when_loading(copy):
    folder, _ = copy
    with pytest.raises(UsageError, match="there is no device 'gpu': expected one of cpu, cuda, auto"):
        Bundle.load(folder, device="gpu")
    if Bundle.load(folder, device="auto").provider != "cuda":
        with pytest.raises(DeviceError):
            Bundle.load(folder, device="cuda")


def test_a_bundle_for_a_newer_onnxruntime(copy, images):
    folder, edit = copy
    edit(lambda m: m.update(min_runtime={"onnxruntime": "99.0"}))
    with pytest.raises(DataError, match=r"needs onnxruntime 99\.0 or newer"):
        Bundle.load(folder).predict(images)


def test_a_file_that_the_manifest_does_not_name_is_refused(copy, images):
    folder, _ = copy
    (folder / ".DS_Store").write_bytes(b"of a file manager")
    assert Bundle.load(folder).predict(images).shape == (9,)
    (folder / "extra.onnx").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds 'extra\.onnx', which its manifest does not name"):
        Bundle.load(folder)


def test_how_a_bundle_is_loaded_is_checked(bundle):
    for threads in (0, -3, 2.5, "2", False):
        with pytest.raises(UsageError, match=r"threads is .*, expected a whole number from 1 on"):
            Bundle.load(bundle.path, threads=threads)
    with pytest.raises(UsageError, match="the bundle's path is 5, expected a path"):
        Bundle.load(5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_batch_of_nothing_is_a_usage_error(bundle, images, size):
    with pytest.raises(UsageError, match=r"batch_size is .*, expected a whole number from 1 on"):
        bundle.predict_proba(images, batch_size=size)


def test_links_are_not_followed_and_only_files_are_read(copy):
    folder, _ = copy
    path = folder / "encoder.onnx"
    moved = folder.parent / "elsewhere.onnx"
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(DataError, match=r"encoder\.onnx: it is a link"):
        Bundle.load(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        Bundle.load(folder)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):  # and no waiting for a writer
        Bundle.load(folder)


def test_a_file_swapped_after_loading_changes_nothing(copy, images):
    folder, _ = copy
    loaded = Bundle.load(folder)
    for path in folder.glob("*.onnx"):
        path.write_bytes(b"something else")
    assert np.array_equal(loaded.predict(images), Bundle.load(PRETRAINED / "digits").predict(images))


@pytest.mark.parametrize("call", ["os.listdir", "pathlib.Path.exists"])
def test_a_folder_that_may_not_be_looked_into(copy, monkeypatch, call):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(call, refused)
    with pytest.raises(DataError, match=r"cannot read .*: Permission denied"):
        Bundle.load(copy[0])


def test_a_graph_without_a_manifest_is_never_run(tmp_path):
    shutil.copy(PRETRAINED / "digits" / "decoder.onnx", tmp_path / "decoder.onnx")
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        Bundle.load(tmp_path)


def replace_graph(folder, edit, content: bytes) -> None:
    """Put other bytes in the classifier's place, with a manifest that vouches for them."""
    (folder / "classifier.onnx").write_bytes(content)
    edit(lambda m: m["graphs"]["classifier"].update(sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
    edit(lambda m: m.update(model_id=model_id(m)))


@pytest.mark.parametrize("content", [b"", b"text\n" * 9, bytes(4096), os.urandom(999)], ids=["empty", "text", "zeros", "noise"])
def test_bytes_that_are_no_graph(copy, images, content):
    folder, edit = copy
    replace_graph(folder, edit, content)
    with pytest.raises(DataError, match=r"classifier\.onnx"):
        Bundle.load(folder).predict(images)


def test_a_graph_for_a_newer_runtime(copy, images):
    """The number of the form is in the first bytes of the file: 9 becomes 99."""
    folder, edit = copy
    content = bytearray((folder / "classifier.onnx").read_bytes())
    assert content[:1] == b"\x08"
    content[1] = 99
    replace_graph(folder, edit, bytes(content))
    with pytest.raises(DataError, match="cannot be loaded by onnxruntime"):
        Bundle.load(folder).predict(images)


def test_cuda_is_strict(images):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a CUDA build")
    with pytest.raises(DeviceError, match="no CUDA provider"):
        Bundle.load(device="cuda").predict(images)
    assert Bundle.load(device="auto").provider == "cpu"


@pytest.mark.parametrize("given", [None, 3, [[0]]])
def test_what_is_no_picture_cannot_be_read(bundle, given):
    with pytest.raises(UsageError, match=r"read\(\) takes a file's path, its bytes, or an array of one picture, got (None|a int|a list)"):
        bundle.read(given)


def test_names_of_answers_know_the_unknown(bundle):
    assert [bundle.name_of(c) for c in (UNKNOWN, 0, len(bundle.names) - 1)] == ["unknown", bundle.names[0], bundle.names[-1]]
    assert repr(bundle).startswith(f"<Bundle of {bundle.manifest.provenance.data}: {len(bundle.names)} clusters, ")
