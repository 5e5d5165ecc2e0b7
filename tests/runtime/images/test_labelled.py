"""Which columns of a CSV file hold paths and classes."""

import os

import pytest

from catvae.runtime.errors import DataError
from catvae.runtime.images.labelled import read_labelled
from catvae.runtime.images.preprocess import Preprocess

RULES = Preprocess(height=8, width=8, channels=1)


@pytest.mark.parametrize(
    "text",
    [
        "a.png,cat\nb.png,dog\n",
        "file,species\na.png,cat\nb.png,dog\n",
        "path,ok,cluster,name,confidence,provider,error\na.png,true,3,cat,0.9,CPU,\nb.png,true,4,dog,0.8,CPU,\n",
        "path,name,class,remark\na.png,x,cat,\nb.png,x,dog,seen twice\n",
        "path,ok,name,error\na.png,true,cat\nb.png,true,dog\n",
        "Image,Remark,Label\na.png,,cat\nb.png,,dog\n",
        "a.png,cat,,\n\nb.png,dog\n",
    ],
)
def test_the_column_of_classes(png, tmp_path, text):
    png("a.png"), png("b.png")
    (tmp_path / "given.csv").write_text(text)
    given = read_labelled(tmp_path / "given.csv", RULES)
    assert [given.names[label] for label in given.labels] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,ok,cluster\na.png,true,3\n", "line 1: no column of 'path, ok, cluster' is called class, label, category, kind or name"),
        ("a.png,true,3,cat\n", "line 1: expected path,class, or a first line that says which column is which, found 'a.png,true,3,cat'"),
        ("path;class\na.png;cat\n", "line 1: expected path,class with a comma between them, found 'path;class'"),
        ("path,class\na.png;cat\n", "line 2: expected path,class with a comma between them, found 'a.png;cat'"),
        ("path,ok,name\na.png,true,cat\nb.png,true,\n", "line 3: expected a path and, in column 3 of 3, a class, found 'b.png,true,'"),
        ("path,seen,name,age\na.png,yes,,3\n", "line 2: expected a path and, in column 3 of 4, a class, found 'a.png,yes,,3'"),
        ("path\na.png\n", "line 1: no column of 'path' is called"),
    ],
)
def test_what_cannot_be_told_is_refused(png, tmp_path, text, message):
    png("a.png"), png("b.png")
    (tmp_path / "given.csv").write_text(text)
    with pytest.raises(DataError) as found:
        read_labelled(tmp_path / "given.csv", RULES)
    assert message in str(found.value)


def test_rows_of_answers_name_the_images_that_have_a_name(png, tmp_path, monkeypatch):
    """As `catvae-infer -o out/rows.csv` left them, where it was called; blank lines before the header are none."""
    png("a.png"), png("b.png"), png("c.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.csv").write_text(
        "\npath,ok,cluster,name,confidence,provider,error\na.png,true,3,cat,0.9,CPU,\nb.png,TRUE,-1,unknown,0.3,CPU,\n"
        "gone.png,false,,,,,no_such_file: gone\nc.png,true,4,dog,0.9,CPU,\nb.png,true,4,,0.9,CPU,\n"
    )
    png("out/a.png", 200)  # not the one that was sorted
    monkeypatch.chdir(tmp_path)
    given = read_labelled("out/rows.csv", RULES)
    assert [given.names[label] for label in given.labels] == ["cat", "dog"]
    assert given.paths[0] == "a.png"


@pytest.mark.parametrize("text", ["path,ok,cluster,name\na.png\n", "path,ok\na.png,\n"])
def test_a_row_that_is_cut_short_is_an_error(png, tmp_path, text):
    png("a.png")
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match="line 2: expected"):
        read_labelled(tmp_path / "rows.csv", RULES)


def test_a_column_called_ok_may_be_the_users(png, tmp_path):
    """Two columns that begin as ours do are no rows of ours."""
    png("a.png"), png("b.png")
    (tmp_path / "given.csv").write_text("path,ok\na.png,true\nb.png,false\n")
    assert read_labelled(tmp_path / "given.csv", RULES).names == ("false", "true")


def test_no_class_is_called_unknown(png, tmp_path):
    png("a.png")
    (tmp_path / "given.csv").write_text("a.png,unknown\n")
    with pytest.raises(DataError, match="'unknown' is what rows call an image that is unlike all clusters"):
        read_labelled(tmp_path / "given.csv", RULES)


def test_a_file_of_a_table_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path):
    (tmp_path / "given.csv").write_text("a.png,cat\n")
    with pytest.raises(DataError, match=r"a.png: no such file.*; paths in a table begin at its own folder"):
        read_labelled(os.path.relpath(tmp_path / "given.csv"), RULES)
