"""Names that were given to a bundle outlive another export of the same weights, and reach the bundles of reduced precision."""

import shutil

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from catvae.core.runs.folder import RunFolder  # noqa: E402
from catvae.core.training.checkpoint import weights_bytes  # noqa: E402
from catvae.export.bundle_writer import export_bundle, summary  # noqa: E402
from catvae.export.export_command import export  # noqa: E402
from catvae.runtime.bundles.bundle import Bundle  # noqa: E402
from catvae.runtime.commands.labelling import renamed, write_names  # noqa: E402
from catvae.runtime.errors import UsageError  # noqa: E402


@pytest.fixture
def named(finished_run, tmp_path):
    """A bundle of the run, two of whose clusters were named by hand."""
    target = tmp_path / "named"
    export_bundle(finished_run, target)
    bundle = Bundle.load(target)
    write_names(bundle, renamed(bundle.manifest, bundle.names, {0: "clean", 2: "scratch"}), target)
    return target


def other_weights(run, tmp_path):
    """The same run with one weight changed."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    model = RunFolder(other).read_model()
    with torch.no_grad():
        model.E += 0.25
    RunFolder(other).weights.write_bytes(weights_bytes(model))
    return other


def test_a_bundle_that_is_exported_anew_keeps_its_names(finished_run, named):
    before = Bundle.load(named).names
    assert before[0] == "clean"
    exported = export_bundle(finished_run, named, overwrite=True)
    assert Bundle.load(named).names == before
    assert "clean" in (named / "MODEL_CARD.md").read_text()
    assert summary(exported)["names"] == "as in the bundle that was there"


def test_a_bundle_that_was_not_renamed_says_nothing_of_names(finished_run, tmp_path):
    export_bundle(finished_run, tmp_path / "b")
    assert "names" not in summary(export_bundle(finished_run, tmp_path / "b", overwrite=True))


def test_numbers_give_way_to_names_that_the_run_has_by_now(finished_run, tmp_path):
    """Trained again with --labels, which changes no weight."""
    target, own = tmp_path / "b", [cluster.name for cluster in RunFolder(finished_run).read_record().clusters]
    assert own != [str(i) for i in range(len(own))]
    export_bundle(finished_run, target)
    bundle = Bundle.load(target)
    write_names(bundle, bundle.manifest.with_names([str(i) for i in range(len(own))]), target)
    assert "names" not in summary(export_bundle(finished_run, target, overwrite=True))
    assert Bundle.load(target).names == own


def test_names_of_another_bundle_are_taken_over(finished_run, named, tmp_path):
    arguments = ["--onnx", str(finished_run), "-o", str(tmp_path / "half"), "--fp16", "--names-from", str(named), "-q"]
    result = CliRunner().invoke(export, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    assert Bundle.load(tmp_path / "half").names == Bundle.load(named).names
    assert f"names     as in {named}" in result.stdout


def test_names_of_other_weights_stay_where_they_are(finished_run, named, tmp_path):
    """Their numbers stand for other clusters."""
    other = other_weights(finished_run, tmp_path)
    with pytest.raises(UsageError, match=r"--names-from .*named: its clusters are those of other weights than .*other's"):
        export_bundle(other, tmp_path / "b", names_from=named)
    assert not (tmp_path / "b").exists()
    exported = export_bundle(other, named, overwrite=True)
    assert Bundle.load(named).names == [cluster.name for cluster in RunFolder(other).read_record().clusters]
    assert "names" not in summary(exported)


def test_names_are_only_taken_for_a_run():
    result = CliRunner().invoke(export, ["--web", "page", "--names-from", "b"], standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert "--names-from belong to --onnx RUN" in str(result.exception)
