"""The README's examples run as written: its Python blocks, and its commands on a small folder of images. So do those of docs/python.md."""

import ast
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from .conftest import ROOT, command

sys.path.insert(0, str(ROOT))

import demo

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SESSION = re.findall(r"^\$ (catvae-.*)\n((?:(?!\$|```).*\n)+)", README, re.MULTILINE)
"""Commands that are shown with what they print, the demo's own."""
COMMANDS = re.findall(r"^\$ (catvae-.*)$", README, re.MULTILINE)
SCRIPTS = set(re.findall(r"^(catvae-\w+) =", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))


def test_there_is_something_to_test():
    assert len(PYTHON) == 3
    assert len(COMMANDS) == 21
    assert len(SESSION) == 3
    assert {line.split()[0] for line in COMMANDS} == SCRIPTS - {"catvae-doctor"}


@pytest.mark.parametrize("code", PYTHON, ids=["runtime", "training", "kernel"])
def test_python_examples_run(code, tmp_path):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr


def test_the_page_on_python_runs_in_order_and_gives_the_shapes_it_shows():
    known, shown = {}, 0
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, known)
        for code, shape in re.findall(r"^(\S.*?) +# (\([\d, ]+\))(?:: .*| float32 .*)?$", block, re.MULTILINE):
            value = eval(code.partition(" = ")[0] if " = " in code else code, known)
            assert getattr(value, "shape", value) == ast.literal_eval(shape), code
            shown += 1
    assert shown == 7


def test_the_session_is_the_demos_and_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    """Every line that the README shows is there, by its first word; figures are those of another day."""
    monkeypatch.chdir(tmp_path)
    quickly = {"catvae-train": ("--epochs", "20"), "catvae-infer": ("--format", "table")}
    for line, shown in SESSION:
        name, *arguments = shlex.split(line)
        if name == "catvae-infer":
            demo.write_images(demo.IMAGES)
        result = command(name, *arguments, *quickly.get(name, ()), cwd=tmp_path)
        assert result.returncode == 0, (line, result.stderr)
        printed = [text.split()[0] for text in (result.stdout + result.stderr).splitlines() if text.strip()]
        assert {text.split()[0] for text in shown.splitlines()} <= set(printed), (line, printed)
    ran: list[str] = []
    monkeypatch.setattr(demo, "show", ran.append)
    demo.main()
    for line, _ in SESSION:
        assert any(set(shlex.split(line)) <= set(shlex.split(other)) for other in ran), line
    last = capsys.readouterr().out.split("Look at:")[1]
    assert str(demo.RUN / "report.html") in last
    assert f"the studio: python3 -m http.server -d {demo.STUDIO}" in last


def test_links_lead_somewhere():
    for pair in re.findall(r"\]\(((?!http)\S+?)\)|src=\"(\S+?)\"", README):
        path, _, anchor = "".join(pair).partition("#")
        target = ROOT / (path or "README.md")
        assert target.exists(), pair
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, pair


def test_commands_run_in_order(tmp_path):
    digits = load_digits()
    (tmp_path / "my-images").mkdir()
    for i in range(200):
        image = Image.fromarray(np.round(digits.images[i] * (255 / 16)).astype(np.uint8))
        image.save(tmp_path / "my-images" / f"{i}.png")
        if i < 20:
            known = tmp_path / "known-images" / f"kind {digits.target[i] % 8}"
            known.mkdir(parents=True, exist_ok=True)
            image.save(known / f"{i}.png")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for line in [line for line in COMMANDS if line not in dict(SESSION)]:
        name, *arguments = shlex.split(line, comments=True)
        extra = ["--epochs", "150", "-q"] if name == "catvae-train" else []
        result = command(name, *arguments, *extra, cwd=tmp_path)
        assert result.returncode == 0, (line, result.stderr)
    for name in (
        "new.png",
        "ring.png",
        "walk.png",
        "style.png",
        "path.png",
        "rebuilt.png",
        "report.html",
        "rows.jsonl",
        "sorted",
        "my-page/index.html",
    ):
        assert (tmp_path / name).exists(), name
    assert (tmp_path / "my-small-bundle" / "manifest.json").exists()
