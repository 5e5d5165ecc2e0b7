"""The rules of the house: who may import whom, how files open, how long they grow."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import ROOT

ROOMS = {
    "core": {"core", "kernels", "runtime"},
    "kernels": {"kernels"},
    "export": {"export", "core", "runtime"},
    "runtime": {"runtime"},
}
LAYERS = {
    "core": ("machine", "images", "vae", "clusters", "training", "runs"),
    "runtime": ("images", "bundles", "report", "commands"),
}
"""Folders of a room: each may use those before it."""
CORE_MAY_USE_OF_RUNTIME = {
    "bundles": {"arguments", "bundle_files", "latents", "matching", "training_record"},
    "commands": {"command"},
}
"""Of these folders, the files that training shares with the device; of the others all."""
HEAVY = {"torch", "onnx", "onnxscript", "sklearn", "scipy", "matplotlib", "safetensors"}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path):
    """(line, dotted name) of every import, relative ones made absolute within their room."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            own = path.relative_to(ROOT).parts[:-1]
            prefix = ".".join(("catvae", *own[: len(own) - node.level + 1])) if node.level else ""
            yield from ((node.lineno, ".".join(filter(None, (prefix, node.module, alias.name)))) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for line, name in imports(path):
        parts = name.split(".")
        where = f"{path.name}:{line} imports {name}"
        if parts[0] == "catvae" and len(parts) > 1:
            assert parts[1] in ROOMS[room], where
            if room == "core" and parts[1] == "runtime" and len(parts) > 2:
                shared = CORE_MAY_USE_OF_RUNTIME.get(parts[2])
                assert shared is None or parts[3] in shared, where
        assert parts[0] not in ROOMS, f"{where}: the room is called catvae.{parts[0]}"
        if room == "runtime":
            assert parts[0] not in HEAVY, where
        if room == "kernels" and path.parent.name != "ops":
            assert parts[0] != "torch", where


def below(room, path_or_name):
    """The folder of a room that a file, or a dotted name, is in; empty for what lies in the room itself."""
    parts = path_or_name.relative_to(ROOT / room).parts if isinstance(path_or_name, Path) else path_or_name.split(".")[2:]
    return parts[0] if parts and parts[0] in LAYERS[room] else ""


@pytest.mark.parametrize("room", LAYERS)
def test_folders_of_a_room_build_on_each_other_in_one_order(room):
    rank = {folder: at for at, folder in enumerate(LAYERS[room])}
    assert {path.parent.name for path in (ROOT / room).glob("*/__init__.py")} == set(rank)
    own = {
        path: [name for _, name in imports(path) if name.startswith(f"catvae.{room}.")]
        for path in FILES
        if path.is_relative_to(ROOT / room)
    }
    on_top = {path.stem for path, names in own.items() if not below(room, path) and any(below(room, name) for name in names)}
    for path, names in own.items():
        folder = below(room, path)
        for name in names if folder else ():
            used = below(room, name)
            if used:
                assert rank[used] <= rank[folder], f"{path}: {name}"
            else:
                assert name.split(".")[2] not in on_top, f"{path}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_say_what_they_hold_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a file opens with what it holds"
    assert len(text.splitlines()) <= 400


def test_every_folder_is_packaged():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = (path for room in ROOMS for path in (ROOT / room).rglob("__init__.py") if "node_modules" not in path.parts)
    folders = {path.parent.relative_to(ROOT) for path in packages}
    assert set(listed) == {".".join(("catvae", *folder.parts)) for folder in folders}


def test_rooms_are_not_importable_by_accident(tmp_path):
    code = "import importlib.util as u; print([n for n in ('core', 'kernels', 'export', 'runtime') if u.find_spec(n)])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]", result.stderr


def test_no_pickle_in_the_product():
    for path in FILES:
        for _, name in imports(path):
            assert name.split(".")[0] not in {"pickle", "joblib", "dill", "cloudpickle"}, path
        assert "torch.load(" not in path.read_text(encoding="utf-8"), path


def test_runtime_imports_neither_onnxruntime_nor_torch():
    code = "import sys, catvae.runtime, catvae.core, catvae.kernels; print(sorted({'torch', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "[]", result.stderr


def test_the_page_of_faults_names_tests_that_exist():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in rows] == [*range(1, 40), 59, 60]
    named = set(re.findall(r"`(test\w+)`", page))
    written = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"^def (test\w+)", path.read_text(), re.MULTILINE)}
    assert named - written == set()
    assert all(re.search(r"`(test|python -m )", line) for line in rows)


def test_the_map_names_every_source_file():
    """ARCHITECTURE.md has a table for each folder, and a row for each file in it."""
    where = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Where things are")[1].split("## Decisions")[0]
    for room in ROOMS:
        named = set()
        for folder, table in re.findall(rf"(?ms)^### {room}/(\S*)\n(.*?)(?=^### |\Z)", where):
            for cell in re.findall(r"`([^`]+)`", table):
                before, inside, after = re.fullmatch(r"([^{]*)(?:\{([^}]*)\})?(.*)", cell).groups()  # pyright: ignore[reportOptionalMemberAccess]
                named |= {f"{folder}{before}{name}{after}" for name in (inside or "").split(",")}
        files = {
            path.relative_to(ROOT / room).as_posix()
            for suffix in ("*.py", "*.h", "*.c", "*.cuh", "*.cu")
            for path in (ROOT / room).rglob(suffix)
            if not {"node_modules", "web", "pretrained"} & set(path.relative_to(ROOT / room).parts) and path.name != "__init__.py"
        }
        assert files <= named, sorted(files - named)
        gone = {name for name in named if re.fullmatch(r"[\w/]+\.(py|h|c|cuh|cu)", name) and not (ROOT / room / name).is_file()}
        assert gone <= {"setup.py"}, gone
