"""What a call of `catvae-train` does once its options are known to be good: a new run or a resumed one, one seed or several, as the rank
that leads or as one that follows."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from catvae.runtime.errors import DataError, UsageError
from catvae.runtime.interruption import Interrupted, stop_on_signals
from catvae.runtime.wording import say, typed

from .config import Device, TrainConfig
from .images.data import NAMED, ImageData, is_image_folder, load_data
from .images.held_back import split
from .machine.devices import keep_freed_memory, resolve_device, stay_within_quota
from .machine.ranks import Ranks, join, started_by_torchrun
from .progress import announce, conclude, train_with_bar
from .runs.folder import RunFolder
from .runs.record import Origin, RunRecord, source_of
from .runs.seeds import folder_of, is_planned, plan, train_seeds
from .runs.session import Session, as_begun
from .training.feasible import trainable, within_memory
from .training.labelled import LabelledImages, read_labelled
from .training.trainer import Trainer


class Request(NamedTuple):
    """What was asked for."""

    config: TrainConfig
    """Settings of a new run; a resumed one has its own."""
    data: str | None
    output: Path | None
    resume: Path | None
    labels: Path | None
    classes: bool
    """Whether names of sub-folders and stored labels are classes."""
    image_size: int | None
    seeds: int
    overwrite: bool
    quiet: bool
    device: Device | None = None
    """Where a resumed run is to go on, if that was named."""


class _Run(NamedTuple):
    folder: RunFolder
    config: TrainConfig
    origin: Origin
    several_seeds: bool
    finished: bool = False


class _Prepared(NamedTuple):
    images: ImageData
    labelled: LabelledImages | None
    session: Session | None
    """The run, where there is one and this rank leads."""
    trainer: Trainer | None
    """The network, where this rank follows."""
    signals: list[int]
    """Signals that came while the folder's first files were written, which replace those of an earlier run."""


def launch(request: Request) -> int:
    """Train, and say how it came out; returns the exit code.

    Raises
    ------
    CatVAEError
        Whatever kept it from being trained, with the exit code of its kind.
    """
    stay_within_quota()
    keep_freed_memory()
    run = _new(request) if request.resume is None else _resumed(request.resume, request)
    if run.finished:
        say(f"{request.resume} is finished: nothing to resume", quiet=request.quiet)
        return 0
    if run.several_seeds and started_by_torchrun():
        raise UsageError("several seeds are trained one after the other: start each with a torchrun and a --seed of its own")
    device = resolve_device(run.config.device)
    ranks = join(device)
    begun = False
    try:
        with ranks, within_memory(run.config, partial(is_image_folder, run.origin.data)), ExitStack() as until_the_end:
            prepared = _prepare(request, run, ranks, device, until_the_end)
            begun = True
            if prepared.signals:
                raise Interrupted(prepared.signals[0])
            record = _train(request, run, ranks, prepared)
    except Interrupted as interruption:
        hint = "; nothing was trained"
        if request.resume or (begun and can_go_on(run.folder.path)):
            torchrun = "" if ranks.count == 1 else "the same torchrun and "
            hint = f"; go on with: {torchrun}catvae-train --resume {typed(run.folder.path)}"
        say(f"stopped by {interruption}{hint}", quiet=not ranks.leads)
        return 128 + interruption.signum
    if record:
        conclude(record, run.folder.path)
    return 0


def can_go_on(path: Path) -> bool:
    """Whether a run folder has come as far as --resume needs; several seeds are planned before their first is begun."""
    try:
        folder_of(path).read_record()
    except DataError:
        return False
    return True


def _new(request: Request) -> _Run:
    source = "digits" if request.data is None else request.data
    path = Path(source).resolve()
    folder = RunFolder(request.output or Path("runs") / (path.stem if path.is_file() else path.name))
    labels = str(request.labels) if request.labels else None
    return _Run(folder, request.config, Origin.of(source, request.image_size, labels, classes=request.classes), request.seeds > 1)


def _resumed(path: Path, request: Request) -> _Run:
    folder, settings = RunFolder(path), folder_of(path)
    record, config = settings.read_record(), settings.read_config()
    origin = record.origin
    if request.data is not None:  # they lie elsewhere now
        origin = msgspec.structs.replace(origin, data=source_of(request.data))
    if request.labels is not None:
        origin = msgspec.structs.replace(origin, labels=source_of(str(request.labels)))
    several = is_planned(folder)
    device = request.device or config.device
    config = msgspec.structs.replace(config, device=device) if several else as_begun(config, record, device)
    return _Run(folder, config, origin, several, settings.path == path and settings.complete)


def _prepare(request: Request, run: _Run, ranks: Ranks, device: torch.device, until_the_end: ExitStack) -> _Prepared:
    """Read and check everything, and take the folder; what is refused or interrupted here has made and removed nothing."""
    new = request.resume is None
    session = trainer = None
    signals: list[int] = []
    with ranks.preparing(device):
        if new and ranks.leads:
            run.folder.check_free(overwrite=request.overwrite)  # reading the images may take long
        images, labelled = _read(run.origin, quiet=not ranks.leads)
        if new:  # refused before a folder is made or an earlier run removed
            trainable(run.config, len(split(len(images.images)).trained), labelled, ranks)
        if not ranks.leads:
            trainer = Trainer(images, run.config, labelled, ranks)
        else:
            until_the_end.enter_context(run.folder.locked())
            if new:
                run.folder.check_free(overwrite=request.overwrite)  # another call may have finished there in the meantime
            if new and not run.several_seeds:
                with stop_on_signals() as signals:
                    session = Session.start(run.folder, images, run.config, run.origin, labelled, ranks)
            elif not run.several_seeds:
                session = Session.resume(run.folder, images, labelled, ranks, run.origin, run.config.device)
        for note in images.notes:
            say(note, quiet=not ranks.leads)
    return _Prepared(images, labelled, session, trainer, signals)


def _train(request: Request, run: _Run, ranks: Ranks, prepared: _Prepared) -> RunRecord | None:
    """The record of the finished run; None on ranks that follow."""
    if prepared.trainer:
        prepared.trainer.run()
        return None
    train_one = partial(_train_one, quiet=request.quiet)
    if prepared.session:
        train_one(prepared.session)
        ranks.leave()  # the others have no part in what follows
        return prepared.session.finish()
    if request.resume is None:
        plan(run.folder, list(range(run.config.seed, run.config.seed + request.seeds)))
    return train_seeds(run.folder, prepared.images, run.config, run.origin, prepared.labelled, train_one)


def _read(origin: Origin, *, quiet: bool) -> tuple[ImageData, LabelledImages | None]:
    named = origin.data in NAMED  # a folder of that name has its absolute path there
    if origin.image_size is not None and (named or (Path(origin.data).exists() and not is_image_folder(origin.data))):
        raise UsageError(f"--image-size is for a folder of images; {origin.data} has images of its own size")
    warn = partial(say, quiet=quiet)
    images = load_data(origin.data, image_size=origin.image_size, labels=origin.classes, named=named, warn=warn)
    return images, read_labelled(origin.labels, images.preprocess) if origin.labels else None


def _train_one(session: Session, prefix: str = "", *, quiet: bool) -> None:
    announce(session, quiet, prefix)
    train_with_bar(session, quiet, prefix)
