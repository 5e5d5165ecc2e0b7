"""`catvae-label`: names from images, by hand, merges, and what it refuses."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.manifest_seal import seal_of, sealed
from catvae.runtime.commands.labelling import renamed, write_names
from catvae.runtime.errors import DataError, OutputError
from catvae.runtime.images.labelled import read_labelled


@pytest.fixture
def bundle_copy(tmp_path):
    shutil.copytree(PRETRAINED / "digits", tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def labelled(tmp_path, bundle):
    """A folder per class, of images the bundle drew itself: cluster k's are named after k in words."""
    words = ["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    centres = bundle.decode(bundle.means)
    for k, name in enumerate(bundle.names):
        folder = tmp_path / "given" / words[int(name)]
        folder.mkdir(parents=True)
        for i in range(2):
            pixels = np.round(centres[k, ..., 0] * 255).astype(np.uint8)
            Image.fromarray(np.roll(pixels, i, 1)).save(folder / f"{i}.png")
    return tmp_path / "given"


def names(folder) -> list[str]:
    return Bundle.load(folder).names


def test_a_few_images_name_every_cluster(run, bundle_copy, labelled, bundle):
    graphs = {p.name: p.read_bytes() for p in bundle_copy.glob("*.onnx")}
    share = re.search(rb"([0-9.]+)% of 20 images", run("catvae-label", bundle_copy, labelled, "--dry-run").stdout)
    by_hand = run("catvae-label", bundle_copy, labelled, "--dry-run", "--name", "0=banana", "--name", "1=cherry").stdout
    assert float(re.search(rb"([0-9.]+)% of 20 images", by_hand)[1]) == float(share[1]) - 20.0
    result = run("catvae-label", bundle_copy, labelled)
    assert result.returncode == 0, result.stderr
    assert b"% of 20 images are in a cluster of their name" in result.stdout
    words = ["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert names(bundle_copy) == [words[int(name)] for name in bundle.names]
    assert {p.name: p.read_bytes() for p in bundle_copy.glob("*.onnx")} == graphs
    assert "| nought |" in (bundle_copy / "MODEL_CARD.md").read_text()


def test_a_class_of_several_clusters_is_told_to_need_another_match(run, bundle_copy, labelled):
    for name in ("one", "two", "three"):
        for file in (labelled / name).iterdir():
            (labelled / "nought" / f"{name}-{file.name}").write_bytes(file.read_bytes())
        shutil.rmtree(labelled / name)
    said = run("catvae-label", bundle_copy, labelled, "--dry-run")
    assert b"note: 100.0% would be, if a class may have several clusters: --match many-to-one" in said.stderr
    said = run("catvae-label", bundle_copy, labelled, "--match", "many-to-one", "--dry-run")
    assert b"100.0% of 20 images" in said.stdout
    assert b"would be" not in said.stderr


def test_classes_that_clusters_do_not_follow_are_named_with_a_warning(run, bundle_copy, labelled):
    """Every class holds two images of every cluster."""
    said = run("catvae-label", bundle_copy, labelled, "--dry-run").stderr
    assert b"follow something else" not in said
    for image in sorted(labelled.glob("*/*.png")):
        for other in labelled.iterdir():
            shutil.copy(image, other / f"of {image.parent.name} {image.name}")
        image.unlink()
    result = run("catvae-label", bundle_copy, labelled, "--dry-run")
    assert result.returncode == 0
    assert b"warning: most of these images are in a cluster of another name" in result.stderr


@pytest.mark.parametrize("header", ["path", "Filename"])
def test_a_csv_file_with_relative_paths(run, bundle_copy, labelled, tmp_path, header):
    with (tmp_path / "given.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([header, "class"])
        rows.writerows([p.relative_to(tmp_path), p.parent.name] for p in sorted(labelled.glob("*/*.png")))
    by_folder, by_file = (read_labelled(source, Bundle.load(bundle_copy).preprocess) for source in (labelled, tmp_path / "given.csv"))
    assert by_folder.names == by_file.names
    assert np.array_equal(by_folder.images, by_file.images)
    assert np.array_equal(by_folder.labels, by_file.labels)
    assert run("catvae-label", bundle_copy, tmp_path / "given.csv", "--dry-run").returncode == 0
    assert "nought" not in names(bundle_copy)


def test_an_image_called_as_a_header_is_one(bundle_copy, png, tmp_path):
    png("image.png").rename(tmp_path / "image")
    (tmp_path / "given.csv").write_text("image,one\n")
    assert read_labelled(tmp_path / "given.csv", Bundle.load(bundle_copy).preprocess).names == ("one",)


def test_many_clusters_may_share_a_class_and_then_count_as_one(run, bundle_copy, labelled, png):
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]:
        (labelled / word).rename(labelled / f"{word}.moved")
    (labelled / "other").mkdir()
    for i, folder in enumerate(sorted(labelled.glob("*.moved"))):
        for image in folder.iterdir():
            image.rename(labelled / "other" / f"{i}-{image.name}")
        folder.rmdir()
    told = run("catvae-label", bundle_copy, labelled, "--match", "one-to-one", "--dry-run")
    assert told.returncode == 0
    assert [line.split()[1] for line in told.stdout.splitlines()[:11]].count(b"other") == 1
    result = run("catvae-label", bundle_copy, labelled, "--match", "many-to-one", "-o", "renamed")
    assert result.returncode == 0, result.stderr
    renamed = bundle_copy.parent / "renamed"
    assert names(renamed).count("other") == 9
    row = json.loads(run("catvae-infer", "-b", renamed, png(pixels=90)).stdout)
    assert row["name"] in ("other", "nought")
    other = sum(a for a, name in zip(row["assignment"], names(renamed), strict=True) if name == row["name"])
    assert row["confidence"] == pytest.approx(other, abs=1e-6)
    assert row["confidence"] >= 0.5


def test_names_and_merges_by_hand(run, bundle_copy, bundle):
    result = run("catvae-label", bundle_copy, "--name", f"{bundle.names[0]}=first", "--merge", f"{bundle.names[1]},{bundle.names[2]}=both")
    assert result.returncode == 0, result.stderr
    assert names(bundle_copy) == ["first", "both", "both", *bundle.names[3:]]
    assert Bundle.load(bundle_copy).manifest.groups[:3] == [0, 1, 1]


def test_a_name_that_is_the_number_of_another_cluster_does_not_merge_them(bundle):
    numbers = [str(i) for i in range(10)]  # as a run without labels has them
    assert renamed(bundle.manifest, numbers, {0: "1"}).names == ["1", "cluster 1", *numbers[2:]]
    assert renamed(bundle.manifest, numbers, {0: "1", 1: "1"}).names == ["1", "1", *numbers[2:]]  # asked for


def test_a_number_that_is_another_cluster_s_name(run, bundle_copy):
    """Names come first, and that is said; with # it is the number."""
    given = names(bundle_copy)
    cluster = next(i for i, name in enumerate(given) if name != str(i))
    other = given.index(str(cluster))
    result = run("catvae-label", bundle_copy, "--name", f"{cluster}=A", "--dry-run")
    assert f"note: {cluster} is taken for the name of cluster {other}; #{cluster} is the cluster".encode() in result.stderr
    assert b"note" not in run("catvae-label", bundle_copy, "--name", f"#{cluster}=A").stderr
    assert names(bundle_copy) == [*given[:cluster], "A", *given[cluster + 1 :]]


def test_a_name_that_another_cluster_has_merges_them_and_says_so(run, bundle_copy):
    first, second, *_ = names(bundle_copy)
    result = run("catvae-label", bundle_copy, "--name", f"{first}={second}")
    assert f"note: {second} is the name of cluster 1 too".encode() in result.stderr
    assert Bundle.load(bundle_copy).manifest.groups[:2] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give IMAGES, --name or --merge"),
        (["--name", "3"], 2, "expected CLUSTER=NAME"),
        (["--name", "0=a\tb"], 2, "'a\\tb' cannot name a cluster: expected 1 to 255 printable characters"),
        (["--name", "0=unknown"], 2, "'unknown' is what rows call an image that is unlike all clusters"),
        (["--name", "#77=x"], 2, "there is no cluster '#77'"),
        (["tab.csv"], 3, "cannot name a cluster"),
        (["--name", "nowhere=x"], 2, "there is no cluster 'nowhere'"),
        (["--name", "#0=x", "--merge", "#0,#1=y"], 2, "named twice"),
        (["absent"], 3, "cannot read the labels"),
        (["empty"], 3, "one sub-folder per class"),
        (["bad.csv"], 3, "bad.csv, line 2: expected path,class"),
        (["gone.csv"], 3, "gone.png"),
        (["both.csv"], 3, "both.csv, line 3: ./a.png is 'two' here and 'one' above"),
        (["many.csv"], 2, "11 classes cannot each name one of 10 clusters"),
        (["--name", "#0=x", "-o", "full"], 2, "not empty"),
    ],
)
def test_mistakes_are_named_in_one_line(run, bundle_copy, tmp_path, png, arguments, code, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    png("a.png")
    (tmp_path / "bad.csv").write_text("a.png,one\na.png\n")
    (tmp_path / "gone.csv").write_text("gone.png,one\n")
    (tmp_path / "tab.csv").write_text("a.png,a\x1bb\n")
    (tmp_path / "both.csv").write_text("a.png,one\na.png,one\n./a.png,two\n")
    (tmp_path / "many.csv").write_text("".join(f"{png(f'{i}.png')},{i}\n" for i in range(11)))
    before = (bundle_copy / "manifest.json").read_bytes()
    result = run("catvae-label", bundle_copy, *arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr.decode()
    assert len(result.stderr.decode().strip().splitlines()) == 1
    assert not result.stdout
    assert (bundle_copy / "manifest.json").read_bytes() == before


def test_an_unreadable_labelled_image_is_an_error(bundle, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        read_labelled(tmp_path, bundle.preprocess)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("twelve", "twelve is a link to a folder"),
        ("one/twelve", "one/twelve: a link to a folder"),
        ("loose.png", r"loose\.png lies in no sub-folder"),
        ("twelve/x.txt", r"twelve/x\.txt is not of a kind that is read"),
        ("one/x.heic", r"one/x\.heic is not of a kind that is read"),
        ("x.heic", r"x\.heic lies in no sub-folder"),
    ],
)
def test_what_would_drop_a_label_is_an_error(bundle, labelled, tmp_path, odd, message):
    (labelled / "one").mkdir(exist_ok=True)
    place = labelled / odd
    place.parent.mkdir(exist_ok=True)
    if place.suffix:
        place.write_bytes(next(labelled.glob("*/*.png")).read_bytes())
    else:
        place.symlink_to(tmp_path)
    with pytest.raises(DataError, match=message):
        read_labelled(labelled, bundle.preprocess)


def test_what_drops_no_label_is_passed_over(bundle, labelled):
    before = read_labelled(labelled, bundle.preprocess)
    (labelled / "unused").mkdir()
    (labelled / "notes.txt").write_text("")
    (labelled / "one" / "notes.txt").write_text("")
    (labelled / "one" / ".thumbnails").mkdir()
    (labelled / "one" / ".thumbnails" / "x.heic").write_text("")
    assert read_labelled(labelled, bundle.preprocess).paths == before.paths


def test_a_path_in_a_csv_file_is_read_as_it_is_written(bundle, png, tmp_path):
    """Through a link, .. leads elsewhere than its letters say."""
    png("data/img/a.png")
    (tmp_path / "data" / "labels").mkdir()
    (tmp_path / "labels").symlink_to(tmp_path / "data" / "labels")
    (tmp_path / "data" / "labels" / "given.csv").write_text("../img/a.png,one\n")
    assert len(read_labelled(tmp_path / "labels" / "given.csv", bundle.preprocess).images) == 1


def test_a_class_whose_images_lie_elsewhere_names_no_cluster(run, bundle_copy, labelled, png, bundle):
    """Eleven kinds in ten clusters is refused; a second kind of ones, under a name of its own, is left without one."""
    shutil.rmtree(labelled / "nought")
    ones = next(folder for folder in labelled.iterdir() if folder.name == "one")
    shutil.copytree(ones, labelled / "scratched")
    before = names(bundle_copy)
    result = run("catvae-label", bundle_copy, labelled)
    assert result.returncode == 0
    named = names(bundle_copy)
    assert len({"one", "scratched"} & set(named)) == 1
    assert [name for name, old in zip(named, before, strict=True) if name == old]  # of kinds that no image speaks for
    assert b"no cluster is named" in result.stderr


def test_clusters_that_no_image_speaks_for_keep_their_names(run, bundle_copy, labelled):
    before = names(bundle_copy)
    for folder in list(labelled.iterdir()):
        if folder.name != "one":
            shutil.rmtree(folder)
    given = labelled / "one"
    given.rename(labelled / before[0])  # the name that another cluster has
    assert run("catvae-label", bundle_copy, labelled).returncode == 0
    named = names(bundle_copy)
    changed = [i for i in range(10) if named[i] != before[i]]
    assert named.count(before[0]) == 1
    assert all(named[i] in (before[0], f"cluster {i}") for i in changed)
    assert len(changed) <= 2


def test_a_class_may_be_called_as_a_cluster_without_a_name_is(run, bundle_copy, labelled, bundle):
    """The class takes the name, and the cluster of that number another."""
    number = bundle.names.index("3")
    (labelled / "five").rename(labelled / f"cluster {number}")
    for folder in list(labelled.iterdir()):
        if not folder.name.startswith("cluster"):
            shutil.rmtree(folder)
    assert run("catvae-label", bundle_copy, "--name", f"3=cluster {number}").returncode == 0
    assert run("catvae-label", bundle_copy, labelled).returncode == 0
    named = names(bundle_copy)
    assert named.index(f"cluster {number}") == bundle.names.index("5")
    assert named[number] == f"cluster {number} (2)"


def test_ink_on_paper_is_swapped_before_it_is_read(run, bundle, bundle_copy, tmp_path):
    from PIL import Image, ImageOps

    for cluster in (2, 5):
        (tmp_path / "paper" / f"kind {cluster}").mkdir(parents=True)
        pixels = np.round(bundle.sample(cluster, 1, seed=4)[0, ..., 0] * 255).astype(np.uint8)
        ImageOps.invert(Image.fromarray(pixels)).save(tmp_path / "paper" / f"kind {cluster}" / "a.png")
    assert run("catvae-label", bundle_copy, "paper", "--invert").returncode == 0
    assert [names(bundle_copy)[cluster] for cluster in (2, 5)] == ["kind 2", "kind 5"]
    for option in ("--invert", "--match=one-to-one"):
        result = run("catvae-label", bundle_copy, "--name", "0=x", option)
        assert (result.returncode, b"is about IMAGES" in result.stderr) == (2, True)


def test_letters_that_the_terminal_lacks_stop_nothing(run, bundle_copy):
    result = run("catvae-label", bundle_copy, "--name", "0=猫", env={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, b"\\u732b" in result.stdout) == (0, True), result.stderr
    assert "猫" in names(bundle_copy)


def test_a_renamed_bundle_appears_whole_or_not_at_all(run, bundle_copy, tmp_path, monkeypatch):
    """Stopped in the middle, what is there is no bundle that lacks files, and the call can be repeated."""
    bundle = Bundle.load(bundle_copy)

    def full(*_):
        raise OutputError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("catvae.runtime.whole_folder.atomic_write", full)
        with pytest.raises(OutputError):
            write_names(bundle, bundle.manifest, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    write_names(bundle, bundle.manifest, tmp_path / "new")
    assert Bundle.load(tmp_path / "new").names == bundle.names
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_names(bundle, bundle.manifest, tmp_path / "link")
    assert Bundle.load(tmp_path / "empty").names == bundle.names


def test_what_was_printed_before_a_failure_is_not_lost(run, bundle_copy):
    """Commands end without the interpreter's own last acts, of which flushing is one."""
    result = run("catvae-label", bundle_copy, "--name", "0=zero", "-o", "/proc/nowhere/names.json")
    assert result.returncode == 5
    assert b"zero" in result.stdout
    assert b"/proc/nowhere" in result.stderr


def test_what_a_newer_version_has_written_stays(run, bundle_copy):
    path = bundle_copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["newer"], manifest["clusters"][0]["colour"] = [1], "red"
    path.write_bytes(sealed(manifest))
    assert run("catvae-label", "bundle", "--name", "0=zero").returncode == 0
    for cluster in manifest["clusters"]:
        cluster["name"] = "zero" if cluster["name"] == "0" else cluster["name"]
    written = json.loads(path.read_text())
    assert written.pop("seal") == seal_of(written)
    manifest.pop("seal")
    assert written == manifest


def test_names_are_not_written_onto_another_model(run, bundle_copy):
    """A bundle that was exported or named anew between reading and writing."""
    asked = Bundle.load(bundle_copy)
    assert run("catvae-label", bundle_copy, "--name", "#1=first").returncode == 0
    named = renamed(asked.manifest, asked.names, {2: "second"})
    with pytest.raises(DataError, match="by another call meanwhile"):
        write_names(asked, named, bundle_copy)
    assert Bundle.load(bundle_copy).names[1] == "first"
