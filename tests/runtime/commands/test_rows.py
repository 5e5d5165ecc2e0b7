"""Rows as text: what any terminal, pipe and reader of JSON Lines takes."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catvae.runtime.commands.rows import resolve_format, row_writer
from catvae.runtime.errors import UsageError

HALF = "\ud800.png"
"""Half a letter, as names on Windows may hold."""
ANSWER = {"ok": True, "cluster": 1, "name": "one", "confidence": 0.75, "assignment": [0.25, 0.75, 1e-07], "provider": "cpu"}


def written(rows) -> str:
    stream = io.StringIO()
    row_writer("jsonl", stream)(rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    "path", ["a b.png", "caf\u00e9.png", "\udcff.png", "\x1b[2J\x7f.png", "a\nb\r\u2028.png", "\U0001f600.png", '"\\"']
)
def test_any_name_is_one_line_of_ascii_that_reads_back(path):
    rows = [{"path": path, **ANSWER}, {"path": path, "ok": False, "error": {"code": "missing", "message": path}}]
    text = written(rows)
    assert all(" " <= letter <= "~" for line in text.split("\n") for letter in line)
    assert [json.loads(line) for line in text.split("\n")[:-1]] == rows


BYTES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
"""How bytes that are no UTF-8 stand in a path."""


@given(st.text(st.characters() | BYTES), st.floats(allow_nan=False, allow_infinity=False))
def test_names_and_numbers_read_back_as_they_are(path, number):
    row = {"path": path, **ANSWER, "confidence": number, "name": path}
    assert json.loads(written([row])) == row


def test_rows_of_one_answer_are_written_alike_whatever_the_name():
    plain, odd = written([{"path": "e", **ANSWER}]), written([{"path": "\u00e9", **ANSWER}])
    assert json.loads(odd) | {"path": "e"} == json.loads(plain)
    assert " " not in plain + odd


def test_embeddings_go_to_json_lines_alone():
    assert resolve_format("auto", None, embed=True) == "jsonl"
    with pytest.raises(UsageError, match="--embed needs --format jsonl"):
        resolve_format("csv", None, embed=True)


@pytest.mark.parametrize("path", ["c\rd.png", "a\nb.png", 'q"uote,.png', "\udcff.png", HALF])
def test_a_csv_row_is_one_whatever_the_name(path):
    stream = io.StringIO(newline="")
    row_writer("csv", stream)([{"path": path, **ANSWER}, {"path": path, "ok": False, "error": {"code": "missing", "message": "gone"}}])
    _, good, bad = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert (good[1], bad[1]) == ("true", "false")
    assert (good[0] == bad[0] == path) or "\\" in good[0]
    assert float(good[4]) == ANSWER["confidence"]


@pytest.mark.parametrize("name", ["v.xlsx", "v.ODS", "v.parquet"])
def test_a_name_that_promises_what_is_no_text_is_refused(name):
    with pytest.raises(UsageError, match=r"name a file \.csv"):
        resolve_format("auto", Path(name))


def test_csv_has_scores_and_reasons_where_they_were_asked_for():
    rows = [{"path": "a", **ANSWER, "score": -7.5}, {"path": "b", **ANSWER, "score": -99.5, "cluster": -1, "reason": "blank"}]
    stream = io.StringIO()
    row_writer("csv", stream, score=True)(rows)
    known, unknown = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (known["score"], known["reason"], known["provider"]) == ("-7.5", "", ANSWER["provider"])
    assert (unknown["cluster"], unknown["score"], unknown["reason"]) == ("-1", "-99.5", "blank")
    stream = io.StringIO()
    row_writer("csv", stream)(rows)
    assert stream.getvalue().splitlines()[0] == "path,ok,cluster,name,confidence,provider,error"


@pytest.mark.parametrize("path", ["=1+2.png", "+1.png", "-1.png", "@x.png", "-", "a=b.png"])
def test_no_spreadsheet_takes_a_path_for_a_formula(path):
    stream = io.StringIO()
    row_writer("csv", stream)([{"path": path, **ANSWER}])
    found = stream.getvalue().splitlines()[1].split(",")[0]
    assert os.path.normpath(found) == path
    assert found == "-" or found[0] not in "=+-@"
