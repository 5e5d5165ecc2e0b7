"""docs/files.md names what there is: every setting with its defaults, every file, every code of an error, every variable that is read."""

import json
import re

import msgspec

from catvae.core import config
from catvae.core.runs.folder import FILES

from .conftest import ROOT

PAGE = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for room in ("core", "kernels", "runtime") for path in (ROOT / room).rglob("*.py")}


def test_every_setting_has_its_defaults():
    rows = {cells[0].strip("`"): cells[1:3] for cells in table("setting")}
    fields = {field.encode_name: field.default for field in msgspec.structs.fields(config.TrainConfig)}
    assert list(rows) == list(fields)
    for name, (default, paper) in rows.items():
        assert told(default) == plain(fields[name]), name
        of_paper = plain(config.RECIPES["paper"].get(name, fields[name])) if name != "recipe" else "paper"
        assert told(paper or default) == of_paper, name


def test_the_example_is_read():
    found = re.search(r"```json\n(\{\"clusters.*)\n", PAGE)
    assert found
    assert config.resolve(json.loads(found[1])).starts == 1


def test_every_error_code_is_there():
    known = {code for text in SOURCES.values() for code in re.findall(r'(?:ImageError\(\s*|"code": )"(\w+)"', text)}
    assert len(known) >= 11
    assert known == set(re.findall(r"`(\w+)`", " ".join(cells[0] for cells in table("error code"))))


def test_every_file_is_there():
    rest = PAGE[PAGE.index("## A run folder") :]
    for name in (*FILES, "samples/", "seeds/"):
        assert f"`{name}`" in rest, name
    for file in (ROOT / "runtime" / "pretrained" / "digits").iterdir():
        assert f"`{file.name}`" in rest[rest.index("## A bundle") :], file.name


def test_every_variable_is_there():
    read = {name for text in SOURCES.values() for name in re.findall(r'environ.*?"(CATVAE_\w+)"', text)}
    assert read == set(re.findall(r"`(CATVAE_\w+)", PAGE[PAGE.index("## Environment") :]))


def table(heading: str) -> list[list[str]]:
    """Cells of the rows below the line that begins with `heading`."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, heading
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[1].splitlines()]


def told(cell: str) -> object:
    return json.loads(cell.strip("`"))


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
