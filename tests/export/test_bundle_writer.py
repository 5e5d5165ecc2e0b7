"""From run folder to bundle: complete or not there at all."""

import json
import shutil

import msgspec
import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from catvae.core.images.data import load_data
from catvae.core.images.held_back import read_calibration
from catvae.core.runs.evaluation import assign
from catvae.core.runs.folder import RunFolder
from catvae.core.training.checkpoint import weights_bytes
from catvae.export import bundle_writer
from catvae.export.bundle_writer import export_bundle
from catvae.export.graphs import graph_specs, trace
from catvae.export.parity import ParityError, check_files, check_parity
from catvae.export.thresholds import calibrate
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.manifest_seal import sealed
from catvae.runtime.commands.pipeline import Options, classify_stream
from catvae.runtime.errors import DataError, OutputError, UsageError
from catvae.runtime.files import sha256
from catvae.runtime.images.image_files import read_image
from catvae.runtime.report.of_bundle import facts_of_bundle
from catvae.runtime.report.page import render
from catvae.runtime.whole_folder import whole_folder

from ..runtime.fuzzing import model_id


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundles") / "digits"
    export_bundle(finished_run, target)
    return target


def test_contents(exported):
    assert sorted(p.name for p in exported.iterdir()) == [
        "MODEL_CARD.md", "classifier.onnx", "decoder.onnx", "encoder.onnx", "golden.npz", "manifest.json", "preview.png", "training.json",
    ]  # fmt: skip
    assert list(exported.parent.iterdir()) == [exported]
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["lambda"] == 2.5
    assert manifest["provenance"]["data_hash"] == load_data("digits").hash
    assert sum(cluster["share"] for cluster in manifest["clusters"]) == pytest.approx(1)
    card = (exported / "MODEL_CARD.md").read_text()
    assert "Learnt from 1,707 images without labels" in card  # of 1,797, 90 are held back
    assert "never for training" in card


@pytest.mark.parametrize(
    ("names", "said"), [(("0", "1", "2"), "0, 1, 2"), (("2", "1", "0"), "0=2, 1=1, 2=0"), (("0", "a", "b"), "0=0, 1=a, 2=b")]
)
def test_either_all_clusters_or_none_are_said_with_their_name(exported, names, said):
    manifest = Bundle.load(exported).manifest
    clusters = tuple(msgspec.structs.replace(cluster, name=name) for cluster, name in zip(manifest.clusters[:3], names, strict=True))
    found = bundle_writer.summary(bundle_writer.Exported(msgspec.structs.replace(manifest, clusters=clusters), (), ()))
    assert found["clusters"] == said


def test_labels_that_were_trained_on_are_said_to_be(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "label_weight": 5.0}))
    export_bundle(run, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "1,707 images with a few labels of weight 5" in card
    assert "without labels" not in card
    assert "never for training" not in card
    page = render(facts_of_bundle(Bundle.load(tmp_path / "bundle"), load_data("digits").images[:20])).decode()
    assert "learnt from 1,707 images with a few labels" in page


def test_every_graph_says_how_to_feed_and_read_it(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    for role in ("classifier", "encoder", "decoder"):
        said = {entry.key: entry.value for entry in onnx.load(str(exported / f"{role}.onnx")).metadata_props}
        assert (said["role"], said["precision"], said["weights"]) == (role, "fp32", manifest["weights"])
        assert (int(said["clusters"]), int(said["delta"]), float(said["lambda"])) == (10, manifest["delta"], manifest["lambda"])
        assert json.loads(said["preprocess"]) == manifest["preprocess"]


def test_what_training_said_travels_along(finished_run, exported):
    told, run = Bundle.load(exported).training(), RunFolder(finished_run)
    verdict = run.read_record().verdict
    assert verdict is not None
    assert (told.verdict, told.reasons) == (verdict.status, verdict.reasons)
    elbo = [row["elbo"] for row in run.read_metrics() if row["elbo"] is not None]
    assert [value for _, value in told.curves["evidence lower bound"]] == pytest.approx(elbo, rel=1e-4)
    assert told.tables["Configuration"]["epochs"] == "3"
    page = render(facts_of_bundle(Bundle.load(exported), load_data("digits").images[:50])).decode()
    assert f'class="verdict {verdict.status}"' in page
    assert "<figcaption>evidence lower bound</figcaption>" in page
    assert "<summary>Configuration</summary>" in page


def test_a_run_without_its_table_of_metrics_still_exports(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "metrics.csv").unlink()
    export_bundle(run, tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").training().curves == {}
    (run / "metrics.csv").write_text("epoch,elbo\n1,abc\n")
    with pytest.raises(DataError, match="is damaged"):
        export_bundle(run, tmp_path / "other")


def test_the_bundle_sorts_as_the_network_does(finished_run, exported):
    images = load_data("digits").images[:200]
    expected = assign(RunFolder(finished_run).read_model(), images)
    np.testing.assert_allclose(Bundle.load(exported).predict_proba(images), expected, atol=1e-5)


def test_a_second_export_is_byte_identical_and_needs_overwrite(finished_run, exported):
    before = {p.name: p.read_bytes() for p in exported.iterdir()}
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(finished_run, exported)
    export_bundle(finished_run, exported, overwrite=True)
    assert {p.name: p.read_bytes() for p in exported.iterdir()} == before
    assert list(exported.parent.iterdir()) == [exported]


def test_graphs_of_two_exports_are_not_mixed(finished_run, exported, tmp_path):
    """A decoder of other weights, vouched for by the manifest, is noticed by what the graph itself says it was made from."""
    other = tmp_path / "run"
    shutil.copytree(finished_run, other)
    model = RunFolder(other).read_model()
    with torch.no_grad():
        model.E += 0.25
    (other / "model.safetensors").write_bytes(weights_bytes(model))
    export_bundle(other, tmp_path / "other")
    mixed = tmp_path / "mixed"
    shutil.copytree(exported, mixed)
    shutil.copy(tmp_path / "other" / "decoder.onnx", mixed / "decoder.onnx")
    manifest = json.loads((mixed / "manifest.json").read_text())
    manifest["graphs"]["decoder"] = json.loads((tmp_path / "other" / "manifest.json").read_text())["graphs"]["decoder"]
    (mixed / "manifest.json").write_bytes(sealed(manifest))
    with pytest.raises(DataError, match="files of two bundles are mixed"):
        Bundle.load(mixed).sample(0)


@pytest.mark.parametrize(("amount", "message"), [(1e-3, "answered otherwise than their arrays"), (np.nan, "answered otherwise")])
def test_files_that_are_answered_otherwise_stop_the_export(exported, amount, message):
    bundle = Bundle.load(exported)
    check_files(bundle, bundle.predict_proba)
    with pytest.raises(ParityError, match=message):
        check_files(bundle, lambda images: bundle.predict_proba(images) + amount)


@pytest.mark.parametrize("rules", [{"fit": "stretch", "invert": True}, {"resample": "lanczos", "background": 90}, {"resample": "nearest"}])
def test_files_are_read_by_the_runs_own_rules(finished_run, tmp_path, rules):
    """PNG files of several sizes and modes, sorted by the command's own path, as the network sorts what training would have read."""
    run, target = tmp_path / "run", tmp_path / "bundle"
    shutil.copytree(finished_run, run)
    record = json.loads((run / "run.json").read_text())
    record["data"]["preprocess"].update(rules)
    (run / "run.json").write_text(json.dumps(record))
    export_bundle(run, target)
    bundle = Bundle.load(target)
    rng, paths = np.random.default_rng(3), []
    sizes = {"L": (8, 8), "RGB": (20, 9), "RGBA": (5, 31), "P": (16, 16), "1": (40, 40), "LA": (7, 8), "I;16": (12, 10)}
    for mode, size in sizes.items():
        paths.append(tmp_path / f"{len(paths)}.png")
        pixels = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels, "RGBA").convert(mode)
        image.save(paths[-1])
    read = np.stack([read_image(path, RunFolder(run).read_record().data.preprocess) for path in paths])
    expected = assign(RunFolder(run).read_model(), read)
    for batch in (1, 4, 64):
        rows = [row for block in classify_stream(bundle, map(str, paths), Options(batch)) for row in block]
        np.testing.assert_allclose([row["assignment"] for row in rows], expected, atol=1e-5)
        assert [row["cluster"] for row in rows] == expected.argmax(1).tolist()


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
def test_weights_outside_the_graph_are_never_read(exported, tmp_path, monkeypatch, location):
    """Not beside the bundle and not in the working directory, whatever the manifest vouches for."""
    folder, work = tmp_path / "bundle", tmp_path / "work" / "here"
    shutil.copytree(exported, folder)
    work.mkdir(parents=True)
    model = onnx.load(str(folder / "classifier.onnx"))
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    for place in (work, work.parent):
        (place / "weights.bin").write_bytes(tensor.raw_data)
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    content = model.SerializeToString()
    (folder / "classifier.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["classifier"].update(sha256=sha256(content), size=len(content))
    manifest["model_id"] = model_id(manifest)
    (folder / "manifest.json").write_bytes(sealed(manifest))
    monkeypatch.chdir(work)
    with pytest.raises(DataError, match="outside the graph"):
        Bundle.load(folder).predict(np.zeros((1, 8, 8, 1), np.uint8))
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    with pytest.raises(DataError, match="does not name"):
        Bundle.load(folder)


@pytest.mark.parametrize("stranger", [".git/HEAD", "notes.txt", ".keep"])
def test_overwrite_keeps_files_of_others_in_a_bundle(finished_run, tmp_path, stranger):
    target = tmp_path / "bundle"
    export_bundle(finished_run, target)
    (target / stranger).parent.mkdir(exist_ok=True)
    (target / stranger).write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(finished_run, target, overwrite=True)
    assert (target / stranger).read_text() == "mine"
    assert (target / "classifier.onnx").is_file()


def test_overwrite_keeps_what_is_no_bundle_of_ours(finished_run, tmp_path):
    """A folder with a manifest.json of somebody else's, or a bundle with somebody's files in it, is not replaced."""
    target = tmp_path / "app"
    target.mkdir()
    (target / "manifest.json").write_text('{"name": "my web app"}')
    (target / "thesis.txt").write_text("kept")
    with pytest.raises(UsageError, match="only replaces bundles"):
        export_bundle(finished_run, target, overwrite=True)
    assert (target / "thesis.txt").read_text() == "kept"


def test_over_tolerance_nothing_appears(finished_run, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise DataError("parity: encoder.mean differs")

    monkeypatch.setattr(bundle_writer, "check_parity", fail)
    with pytest.raises(DataError, match="parity"):
        export_bundle(finished_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_numbers_are_told(finished_run):
    """On both sides: a difference of nothing from nothing is not none."""
    model = RunFolder(finished_run).read_model()
    with torch.no_grad():
        model.E.fill_(float("nan"))
    specs = graph_specs(model)
    with pytest.raises(ParityError, match="differs from PyTorch by nan"):
        check_parity(model, specs, {spec.role: trace(spec, {"catvae": "0"}) for spec in specs})


def test_a_model_that_answers_nothing_gets_no_thresholds(finished_run, exported, monkeypatch):
    bundle, calibration = Bundle.load(exported), read_calibration(finished_run)
    answers = bundle.examine(calibration.trained, score=True)
    monkeypatch.setattr(bundle, "examine", lambda *_a, **_k: answers._replace(finite=np.zeros(len(answers.finite), bool)))
    with pytest.raises(DataError, match="with finite numbers"):
        calibrate(bundle, calibration)


def test_what_appears_in_a_bundle_while_a_new_one_is_made_is_kept(finished_run, tmp_path, monkeypatch):
    export_bundle(finished_run, tmp_path / "b")
    draw = bundle_writer.preview

    def slowly(*arguments):
        (tmp_path / "b" / "notes.txt").write_text("mine")
        return draw(*arguments)

    monkeypatch.setattr(bundle_writer, "preview", slowly)
    with pytest.raises(UsageError, match=r"holds 'notes\.txt'|only replaces bundles"):
        export_bundle(finished_run, tmp_path / "b", overwrite=True)
    assert (tmp_path / "b" / "notes.txt").read_text() == "mine"


def test_targets_that_are_not_ours_are_left_alone(finished_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    (tmp_path / "file").write_text("")
    for name in ("mine", "file"):
        with pytest.raises(UsageError):
            export_bundle(finished_run, tmp_path / name, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "kept"


def test_folders_that_are_no_finished_run(finished_run, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        export_bundle(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no run\.json"):
        export_bundle(tmp_path / "empty", tmp_path / "out")
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    with pytest.raises(DataError, match="not finished"):
        export_bundle(run, tmp_path / "out")
    (run / "run.json").write_text(json.dumps(record))
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        export_bundle(run, tmp_path / "out")
    (run / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot read"):
        export_bundle(run, tmp_path / "out")
    (run / "model.safetensors").write_bytes(weights)
    (run / "calibration.safetensors").unlink()
    with pytest.raises(DataError, match=r"calibration\.safetensors is missing"):
        export_bundle(run, tmp_path / "out")
    (run / "run.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        export_bundle(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_appears_at_the_target_meanwhile_is_kept(tmp_path):
    (tmp_path / "bundle").mkdir()

    def export_slowly() -> None:
        with whole_folder(tmp_path / "bundle") as staging:
            (staging / "new").write_text("new")
            (tmp_path / "bundle" / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError):
        export_slowly()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bundle", "thesis.txt"]
