"""`catvae-train`: from images to a run folder.

Options mirror `config.TrainConfig`; only those given on the command line override the recipe. torch is imported once the options are
known to be good, so that `--help` answers at once; what happens then stands in `launch`.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catvae.runtime.commands.command import Choice, FilePath, SourceText, command_entry
from catvae.runtime.errors import UsageError
from catvae.runtime.wording import say

if TYPE_CHECKING:
    from .config import TrainConfig


class ClusterCount(click.ParamType):
    """A number, or ``auto``."""

    name = "integer or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return value
        try:
            count = int(value)
        except ValueError:
            count = 0
        if count < 1:
            self.fail(f"'{value}' is not a number of clusters: expected 1 or more, or auto", param, ctx)
        return count


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument(
    "data",
    required=False,
    metavar="[DATA]",
    type=SourceText("the path of the images is empty: name a folder, a file or a data set, or leave it out for the digits"),
)
@click.option("-o", "--output", type=FilePath(), help="Run folder to create. [default: runs/NAME-OF-DATA]")
@click.option("-k", "--clusters", type=ClusterCount(), metavar="K", help="Number of clusters; auto: chosen from the images. [default: 10]")
@click.option("--max-clusters", type=int, metavar="K", help="With -k auto: the most there may be. [default: 20]")
@click.option(
    "--sizes",
    type=Choice(["auto", "equal", "unequal"]),
    help="Whether clusters are of about equal size; auto: unequal where the images clearly show it. [default: auto]",
)
@click.option("--recipe", type=Choice(["robust", "paper"]), help="robust sorts well; paper is the published setting. [default: robust]")
@click.option("--legacy", is_flag=True, default=None, help="With --recipe paper: the published code's own deviations too.")
@click.option("--objective", type=Choice(["infocatvae", "catvae"]), help="catvae leaves out the information term. [default: infocatvae]")
@click.option("--path", type=Choice(["sample", "soft", "gumbel"]), help="Which cluster's z is decoded while training. [default: sample]")
@click.option("--delta", type=int, help="Latent dimensions per cluster. [default: 4; paper: 2]")
@click.option("--lambda", "lambda_", type=float, help="Prior mean of a cluster in each of its own dimensions. [default: 2.5; paper: 2]")
@click.option("--net", type=Choice(["conv", "mlp"]), help="Network: convolutions, or one hidden layer. [default: conv; paper: mlp]")
@click.option(
    "--augment",
    type=Choice(["auto", "digits", "objects", "any-angle", "none"]),
    help="Random changes that keep an image's cluster: of writing, of things that stand, that lie at any angle. [default: auto]",
)
@click.option(
    "--colours",
    type=Choice(["keep", "vary", "ignore"]),
    help="What those changes do to colours. keep: shades tell kinds apart; ignore: outlines do, on any background. [default: vary]",
)
@click.option("--image-size", type=click.IntRange(4, 1024), metavar="PIXELS", help="Fit images of a folder into this square.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes over the data. [default: by size; paper: 20]")
@click.option("--batch-size", type=int, help="Images per step. [default: 256; paper: 128]")
@click.option("--learning-rate", type=float, help="Adam's step size. [default: 0.001]")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), help="[default: auto]")
@click.option(
    "--precision", type=Choice(["auto", "fp32", "bf16"]), help="auto: bf16 where the processor computes it. [default: auto; paper: fp32]"
)
@click.option("--seed", type=int, help="Same seed, same machine, same result. [default: 0]")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, metavar="N", help="Train N runs and keep the one that agrees most with the others."
)
@click.option(
    "--labels",
    type=FilePath(),
    metavar="PATH",
    help="A few labelled images, to name clusters: a folder per class, or a CSV file of path and class.",
)
@click.option("--label-weight", type=float, help="Train on those labels too, with this weight. [default: 0]")
@click.option("--no-labels", is_flag=True, help="Take sub-folders and stored labels for no classes: they may be days, cameras or plates.")
@click.option("--config", "config_file", type=FilePath(), help="JSON or TOML file of settings; options override it.")
@click.option(
    "--resume", type=FilePath(), metavar="RUN", help="Go on with an interrupted run folder; DATA, --labels and --device may be named anew."
)
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the output folder.")
@click.option("-q", "--quiet", is_flag=True, help="No progress: the result, warnings and notes alone.")
def train(
    data: str | None,
    output: Path | None,
    image_size: int | None,
    config_file: Path | None,
    resume: Path | None,
    overwrite: bool,
    quiet: bool,
    seeds: int,
    labels: Path | None,
    no_labels: bool,
    **options: Any,
) -> int:
    """Learn to sort and to draw images without labels.

    DATA is digits (the default; 1,797 small images, no download), mnist or fashion-mnist (fetched from OpenML once), a folder of images,
    a folder of IDX files, or an .npz or .npy file. Names of sub-folders and stored labels are used for the final score and for naming
    clusters, never for training.

    The run folder holds report.html, the model, metrics.csv, pictures in samples/ and everything `catvae-export` needs.
    """
    given = {key.removesuffix("_"): value for key, value in options.items() if value is not None}
    others = {
        "config": config_file,
        "output": output,
        "no-labels": no_labels,
        "image-size": image_size,
        "seeds": seeds > 1,
        "overwrite": overwrite,
    }
    if resume is not None:
        _refuse_beside_resume(resume, [*(name for name in given if name != "device"), *(name for name, value in others.items() if value)])
    for path in (data, output, labels, resume):
        _require_text(path)
    config = _checked(given, config_file, seeds, has_labels=labels is not None or resume is not None)

    follows = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0"  # one of several that torchrun starts, not the first
    say("loading torch ...", quiet=quiet or follows)
    from .machine.waiting import give_way  # not for --help, which loads no kernel

    give_way()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError(f"training needs PyTorch ({error}): pip install '.[train]' in catvae's sources") from error
    from .launch import Request, launch

    return launch(
        Request(
            config=config,
            data=data,
            output=output,
            resume=resume,
            labels=labels,
            classes=not no_labels,
            image_size=image_size,
            seeds=seeds,
            overwrite=overwrite,
            quiet=quiet or follows,
            device=given.get("device"),
        )
    )


def _refuse_beside_resume(resume: Path, given: list[str]) -> None:
    if given:
        names = ", ".join("--" + key.replace("_", "-") for key in given)
        raise UsageError(f"--resume goes on with the settings of {resume}: leave out {names}")


def _require_text(path: str | Path | None) -> None:
    """Run folders are JSON, which cannot hold a path that is not UTF-8, the working folder's neither."""
    for text in (str(path or ""), os.path.abspath(path or "")):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(text).decode(errors="backslashreplace")
            raise UsageError(f"the path '{shown}' is not UTF-8 text: rename it") from error


def _checked(given: dict[str, Any], config_file: Path | None, seeds: int, *, has_labels: bool) -> "TrainConfig":
    """The settings, where options that belong together were given together."""
    from .config import LARGEST_SEED, read_config_file, resolve

    config = resolve(given, read_config_file(config_file) if config_file else None)
    if config.label_weight and not has_labels:
        raise UsageError("--label-weight needs --labels PATH")
    if config.seed + seeds - 1 > LARGEST_SEED:
        raise UsageError(f"--seeds {seeds} from --seed {config.seed} on goes beyond {LARGEST_SEED:,}, the largest seed")
    if "max_clusters" in given and not config.chooses_clusters:
        raise UsageError(f"--max-clusters belongs to -k auto, got -k {config.clusters}")
    return config


main = command_entry(train, "catvae-train")
