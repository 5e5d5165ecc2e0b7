"""`catvae-train`: from images to a run folder.

Options mirror `config.TrainConfig`; only those given on the command line override the recipe. torch is imported once the options are
known to be good, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catvae.kernels import kernel_status
from catvae.runtime.command import Choice, command_entry, say
from catvae.runtime.errors import UsageError

if TYPE_CHECKING:
    from .objective import BatchLoss
    from .run_folder import RunRecord
    from .session import Session


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("data", required=False, metavar="[DATA]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder to create. [default: runs/NAME-OF-DATA]")
@click.option("-k", "--clusters", type=int, metavar="K", help="Number of clusters. [default: 10]")
@click.option("--recipe", type=Choice(["robust", "paper"]), help="robust sorts well; paper is the published setting. [default: robust]")
@click.option("--legacy", is_flag=True, default=None, help="With --recipe paper: the published code's own deviations too.")
@click.option("--objective", type=Choice(["infocatvae", "catvae"]), help="catvae leaves out the information term.")
@click.option("--path", type=Choice(["sample", "soft", "gumbel"]), help="Which cluster's z is decoded while training.")
@click.option("--delta", type=int, help="Latent dimensions per cluster. [default: 4]")
@click.option("--lambda", "lambda_", type=float, help="Distance of a cluster's prior mean along each of its dimensions. [default: 2.5]")
@click.option("--net", type=Choice(["conv", "mlp"]), help="Network. [default: conv]")
@click.option("--augment", type=Choice(["auto", "digits", "objects", "none"]), help="Views of an image that must keep its cluster.")
@click.option("--image-size", type=click.IntRange(4, 1024), metavar="PIXELS", help="Fit images of a folder into this square.")
@click.option("--epochs", type=int, help="Passes over the data. [default: by size]")
@click.option("--batch-size", type=int, help="Images per step. [default: 256]")
@click.option("--learning-rate", type=float, help="Adam's step size. [default: 0.001]")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), help="[default: auto]")
@click.option("--precision", type=Choice(["auto", "fp32", "bf16"]), help="auto: bf16 where the processor computes it. [default: auto]")
@click.option("--seed", type=int, help="Same seed, same machine, same result. [default: 0]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON or TOML file of settings; options override it.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with an interrupted run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the output folder.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only warnings and errors.")
def train(
    data: str | None,
    output: Path | None,
    image_size: int | None,
    config_file: Path | None,
    resume: Path | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Learn to sort and to draw images without labels.

    DATA is digits (the default; 1,797 small images, no download), mnist or fashion-mnist (fetched from OpenML once), a folder of images,
    a folder of IDX files, or an .npz or .npy file. Names of sub-folders and stored labels are used for the final score and for naming
    clusters, never for training.

    The run folder holds the model, metrics.csv, pictures in samples/ and everything `catvae-export` needs.
    """
    from .config import read_config_file, resolve

    given = {key.removesuffix("_"): value for key, value in options.items() if value is not None}
    if resume is not None and (given or config_file or output):
        names = ", ".join("--" + key.replace("_", "-") for key in given) or ("--config" if config_file else "-o")
        raise UsageError(f"--resume goes on with the settings of {resume}: leave out {names}")
    config = resolve(given, read_config_file(config_file) if config_file else None)

    say("loading torch ...", quiet=quiet)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError(f"training needs PyTorch ({error}): pip install 'catvae[train]'") from error
    from .data import load_data
    from .run_folder import RunFolder
    from .session import Session

    if resume is not None:
        folder = RunFolder(resume)
        record = folder.read_record()
        if record.status == "finished":
            raise UsageError(f"{resume} is finished: nothing to resume")
        source, image_size = data or record.source, record.image_size
        images = load_data(source, image_size=image_size, warn=say)
        session = Session.resume(folder, images)
    else:
        source = data or "digits"
        folder = RunFolder(output or Path("runs") / Path(source).resolve().stem)
        folder.check_free(overwrite=overwrite)
        images = load_data(source, image_size=image_size, warn=say)
        session = Session.start(folder, images, config, source, image_size)
    _announce(session, quiet)
    return _train(session, quiet)


def _announce(session: "Session", quiet: bool) -> None:
    data, trainer = session.data, session.trainer
    height, width, channels = data.preprocess.shape
    for note in data.notes:
        say(note)
    say(
        f"{data.name}: {len(data.images):,} images of {width} x {height}, {'grey' if channels == 1 else 'colour'};"
        f" K={trainer.config.clusters}, D={trainer.config.latent}, views '{trainer.policy.name}', {trainer.epochs} epochs of"
        f" {trainer.steps_per_epoch:,} steps on {trainer.device} in {trainer.precision}, {kernel_status(trainer.device.type)}",
        quiet=quiet,
    )


def _train(session: "Session", quiet: bool) -> int:
    from tqdm import tqdm

    from .training import Interrupted

    trainer = session.trainer
    bar = tqdm(
        total=trainer.all_steps,
        initial=trainer.all_steps - trainer.steps_left,
        unit="step",
        disable=quiet or None,
        dynamic_ncols=True,
        file=sys.stderr,
    )
    with bar:

        def show(loss: "BatchLoss") -> None:
            bar.update()
            if trainer.position.step % 10 == 0:
                epoch = 1 + (trainer.position.step - 1) // trainer.steps_per_epoch
                shown = {
                    "rec": loss.terms.reconstruction,
                    "kl": loss.terms.kl,
                    "neg_h": loss.terms.neg_entropy,
                    "info": loss.terms.information,
                    "views": loss.terms.invariance,
                }
                values = {name: f"{float(term.detach()):.2f}" for name, term in shown.items()}
                short = trainer.starts > 1 and not trainer.position.start_scores
                begun = f"start {trainer.position.start + 1} of {trainer.starts}, " if short else ""
                bar.set_description(f"{begun}epoch {epoch} of {trainer.epochs}", refresh=False)
                bar.set_postfix(values, refresh=False)

        try:
            session.train(None if quiet else show)
        except Interrupted as interruption:
            say(f"stopped by {interruption}; go on with: catvae-train --resume {session.folder.path}")
            return 128 + interruption.signum
    _conclude(session.finish(), session.folder.path)
    return 0


def _conclude(record: "RunRecord", path: Path) -> None:
    for warning in record.warnings:
        say(f"warning: {warning}")
    health = record.health
    print(f"run       {path}")
    active, confidence = health["active"], health["mean_confidence"]
    print(f"clusters  {len(record.clusters)}, of which {active:.0f} hold more than 1 %; mean confidence {confidence:.3f}")
    for part, score in record.scores.items():
        print(f"{part:<9} ACC {score['acc']:.4f}  NMI {score['nmi']:.4f}  ARI {score['ari']:.4f}  (labels used for this line only)")
    print(f"pictures  {path / 'samples'}")
    print(f"next      catvae-export --onnx {path}")


main = command_entry(train, "catvae-train")
