"""`catvae-train`: from images to a run folder.

Options mirror `config.TrainConfig`; only those given on the command line override the recipe. torch is imported once the options are
known to be good, so that `--help` answers at once.
"""

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from catvae.runtime.command import Choice, command_entry, say
from catvae.runtime.errors import UsageError


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
@click.argument("data", required=False, metavar="[DATA]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder to create. [default: runs/NAME-OF-DATA]")
@click.option("-k", "--clusters", type=ClusterCount(), metavar="K", help="Number of clusters; auto: chosen from the images. [default: 10]")
@click.option("--max-clusters", type=int, metavar="K", help="With -k auto: the most there may be. [default: 20]")
@click.option(
    "--sizes",
    type=Choice(["auto", "equal", "unequal"]),
    help="Of clusters; auto: unequal where the images clearly show it. [default: auto]",
)
@click.option("--recipe", type=Choice(["robust", "paper"]), help="robust sorts well; paper is the published setting. [default: robust]")
@click.option("--legacy", is_flag=True, default=None, help="With --recipe paper: the published code's own deviations too.")
@click.option("--objective", type=Choice(["infocatvae", "catvae"]), help="catvae leaves out the information term.")
@click.option("--path", type=Choice(["sample", "soft", "gumbel"]), help="Which cluster's z is decoded while training.")
@click.option("--delta", type=int, help="Latent dimensions per cluster. [default: 4]")
@click.option("--lambda", "lambda_", type=float, help="Distance of a cluster's prior mean along each of its dimensions. [default: 2.5]")
@click.option("--net", type=Choice(["conv", "mlp"]), help="Network. [default: conv]")
@click.option("--augment", type=Choice(["auto", "digits", "objects", "any-angle", "none"]), help="Views that must keep their cluster.")
@click.option("--image-size", type=click.IntRange(4, 1024), metavar="PIXELS", help="Fit images of a folder into this square.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes over the data. [default: by size]")
@click.option("--batch-size", type=int, help="Images per step. [default: 256]")
@click.option("--learning-rate", type=float, help="Adam's step size. [default: 0.001]")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), help="[default: auto]")
@click.option("--precision", type=Choice(["auto", "fp32", "bf16"]), help="auto: bf16 where the processor computes it. [default: auto]")
@click.option("--seed", type=int, help="Same seed, same machine, same result. [default: 0]")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, metavar="N", help="Train N runs and keep the best, chosen without labels.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A few labelled images, to name clusters: a folder per class, or a CSV file of path and class.",
)
@click.option("--label-weight", type=float, help="Train on those labels too, with this weight. [default: 0]")
@click.option("--no-labels", is_flag=True, help="Sub-folders and stored labels are no classes: days, cameras, plates.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON or TOML file of settings; options override it.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with an interrupted run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the output folder.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but warnings on standard error.")
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

    The run folder holds the model, metrics.csv, pictures in samples/ and everything `catvae-export` needs.
    """
    from .config import LARGEST_SEED, read_config_file, resolve

    given = {key.removesuffix("_"): value for key, value in options.items() if value is not None}
    others = {
        "config": config_file,
        "output": output,
        "labels": labels,
        "no-labels": no_labels,
        "image-size": image_size,
        "seeds": seeds > 1,
        "overwrite": overwrite,
    }
    refused = [*given, *(name for name, value in others.items() if value)]
    if resume is not None and refused:
        names = ", ".join("--" + key.replace("_", "-") for key in refused)
        raise UsageError(f"--resume goes on with the settings of {resume}: leave out {names}")
    config = resolve(given, read_config_file(config_file) if config_file else None)
    if config.label_weight and labels is None and resume is None:
        raise UsageError("--label-weight needs --labels FILE")
    if config.seed + seeds - 1 > LARGEST_SEED:
        raise UsageError(f"--seeds {seeds} from --seed {config.seed} on goes beyond {LARGEST_SEED:,}, the largest seed")
    if "max_clusters" in given and not config.choose_clusters:
        raise UsageError(f"--max-clusters belongs to -k auto, got -k {config.clusters}")

    follows = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0"  # one of several that torchrun starts, not the first
    say("loading torch ...", quiet=quiet or follows)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError(f"training needs PyTorch ({error}): pip install 'catvae[train]'") from error
    from catvae.runtime.interruption import Interrupted

    from .data import is_image_folder, load_data
    from .devices import keep_freed_memory, resolve_device
    from .held_back import split
    from .labelled import read_labelled
    from .progress import announce, conclude, train_with_bar
    from .ranks import join, started_by_torchrun
    from .run_folder import Origin, RunFolder
    from .seeds import folder_of, is_planned, plan, train_seeds
    from .session import Session
    from .training import Trainer, trainable

    keep_freed_memory()
    several = seeds > 1
    if resume is not None:
        folder = RunFolder(resume)
        several = is_planned(folder)
        settings = folder_of(resume)
        record, config = settings.read_record(), settings.read_config()
        if settings.path == resume and settings.complete:
            say(f"{resume} is finished: nothing to resume", quiet=quiet)
            return 0
        origin = msgspec.structs.replace(record.origin, data=data or record.origin.data)
    else:
        origin = Origin.of(data or "digits", image_size, str(labels) if labels else None, classes=not no_labels)
        folder = RunFolder(output or Path("runs") / Path(data or "digits").resolve().stem)
    if several and started_by_torchrun():
        raise UsageError("several seeds are trained one after the other: start each with a torchrun and a --seed of its own")
    device = resolve_device(config.device)
    ranks = join(device)
    quiet = quiet or not ranks.leads

    def train_one(session: Session, prefix: str = "") -> None:
        announce(session, quiet, prefix)
        train_with_bar(session, quiet, prefix)

    try:
        with ExitStack() as until_the_end:
            with ranks.preparing(device):
                if resume is None and ranks.leads:
                    folder.check_free(overwrite=overwrite)
                if image_size is not None and not is_image_folder(origin.data):
                    raise UsageError(f"--image-size is for a folder of images; {origin.data} has images of its own size")
                warn = partial(say, quiet=not ranks.leads)
                images = load_data(origin.data, image_size=origin.image_size, labels=origin.classes, warn=warn)
                known = read_labelled(origin.labels, images.preprocess) if origin.labels else None
                if resume is None:  # refused before a folder is made or an earlier run removed
                    trainable(config, len(split(len(images.images)).trained), known, ranks)
                trainer = session = None
                if ranks.leads:
                    until_the_end.enter_context(folder.locked())
                    if resume and not several:
                        session = Session.resume(folder, images, known, ranks)
                    elif not several:
                        session = Session.start(folder, images, config, origin, known, ranks)
                else:
                    trainer = Trainer(images, config, known, ranks)
            if trainer:
                trainer.run()
                ranks.leave()
                return 0
            if session:
                train_one(session)
                ranks.leave()
                record = session.finish()
            else:
                if resume is None:
                    plan(folder, list(range(config.seed, config.seed + seeds)))
                record = train_seeds(folder, images, config, origin, known, train_one)
    except Interrupted as interruption:
        torchrun = "" if ranks.count == 1 else "the same torchrun and "
        say(f"stopped by {interruption}; go on with: {torchrun}catvae-train --resume {folder.path}", quiet=not ranks.leads)
        return 128 + interruption.signum
    conclude(record, folder.path)
    return 0


main = command_entry(train, "catvae-train")
