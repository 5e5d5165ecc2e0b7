"""catvae-export: options that contradict one another are refused before anything takes its time; folders that are there stay."""

import pytest
from click.testing import CliRunner

from catvae.export.export_command import export
from catvae.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--onnx", "run", "--int8", "--fp16"], "two bundles"),
        (["--onnx", "run", "-o", "b", "--web", "b"], "lies in the bundle"),
        (["--onnx", "run", "-o", "b", "--web", "b/page"], "lies in the bundle"),
        (["--onnx", "run", "--triton", "run/bundle/models"], "lies in the bundle"),
        (["--onnx", "run", "-o", "out/b", "--web", "out"], "would lie in --web out"),
        (["--onnx", "run", "-o", "out/b/c", "--triton", "out/b"], "would lie in --triton out/b"),
        (["--web", "x", "--triton", "x"], "lie in one another"),
        (["--web", "x/y", "--triton", "x"], "lie in one another"),
        (["--int8", "--web", "x"], "belong to --onnx"),
        (["--onnx", "run", "-b", "b"], "--bundle names"),
    ],
)
def test_contradictions_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(export, arguments, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_page_fills_the_empty_folder_it_is_given(tmp_path, monkeypatch):
    """The working folder, or a mount: it is not replaced."""
    (tmp_path / "page").mkdir()
    before = (tmp_path / "page").stat().st_ino
    monkeypatch.chdir(tmp_path / "page")
    result = CliRunner().invoke(export, ["--web", "."], standalone_mode=False)
    assert result.exception is None, result.exception
    assert (tmp_path / "page" / "index.html").is_file()
    assert (tmp_path / "page").stat().st_ino == before
