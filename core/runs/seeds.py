"""Several runs for one result: `catvae-train --seeds n`.

Every run is a whole run folder under ``RUN/seeds/SEED``. The one whose clusters agree most with those of the others, by the adjusted Rand
index, is kept: its files are copied to RUN. No label is involved: what most seeds find is no accident of one. How far they agree says how
far the result depends on the seed.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from catvae.runtime.errors import DataError, NumericError
from catvae.runtime.files import atomic_write, make_folder, pretty_json
from catvae.runtime.ours import PLAN, RECORD
from catvae.runtime.sampling import scattered
from catvae.runtime.wording import say

from ..config import TrainConfig
from ..images.data import ImageData
from ..machine.devices import seeded
from ..training.checkpoint import POSITION, read_position
from ..training.labelled import LabelledImages
from .evaluation import assign
from .folder import RunFolder
from .record import Origin, RunRecord, SeedRecord
from .report import run_report
from .session import Session, require_same

Agreements = dict[int, dict[int, float]]
"""Adjusted Rand index of each run's clusters with those of each other one."""
COMPARED = 10_000
"""The most images that agreement is measured on."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`seeds.json`: the runs that belong to one result."""

    seeds: list[int]


def is_planned(folder: RunFolder) -> bool:
    """Whether a run folder is one of several seeds."""
    return (folder.path / PLAN).is_file()


def plan(folder: RunFolder, seeds: list[int]) -> None:
    """Begin: what an earlier run left in the folder is removed."""
    make_folder(folder.path)
    folder.clear()
    atomic_write(folder.path / PLAN, pretty_json(Plan(seeds=seeds)))


def read_plan(folder: RunFolder) -> list[int]:
    """Seeds of the runs; raises `DataError` when the plan is damaged."""
    path = folder.path / PLAN
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan).seeds
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def train_seeds(
    folder: RunFolder,
    data: ImageData,
    config: TrainConfig,
    origin: Origin,
    labelled: LabelledImages | None,
    train: Callable[[Session, str], None],
) -> RunRecord:
    """Train what is not yet finished of the plan, compare, and copy the best to `folder`.

    Parameters
    ----------
    config : TrainConfig
        Its seed is replaced by each of the plan's.
    train : callable
        Trains one session; the text says which of how many.

    Raises
    ------
    NumericError
        When every run fails. One that fails beside others is left out, and said to be.
    DataError
        When a finished run is one of other images or labels.
    """
    seeds = read_plan(folder)
    failed: dict[int, NumericError] = {}
    runs = {seed: RunFolder(folder.path / "seeds" / str(seed)) for seed in seeds}
    for index, (seed, run) in enumerate(runs.items(), 1):
        if run.complete:
            record = run.read_record()
            require_same(folder.path, record, data, labelled)
            if record.origin != origin:  # the images lie elsewhere now
                record.origin = origin
                run.write_record(record)
            continue
        with run.locked():
            if (run.path / POSITION).is_file():
                session = Session.resume(run, data, labelled, origin=origin, device=config.device, named=folder.path)
            else:
                session = Session.start(run, data, msgspec.structs.replace(config, seed=seed), origin, labelled)
            try:
                train(session, f"seed {seed} ({index} of {len(seeds)}), ")
                session.finish()
            except NumericError as error:
                say(f"seed {seed} is left out: {error}")
                failed[seed] = error
            del session  # its network and its images' copies, before the next one has some
    if len(failed) == len(seeds):
        raise failed[seeds[-1]]
    return _keep_best(folder, data, {seed: run for seed, run in runs.items() if seed not in failed})


def _keep_best(folder: RunFolder, data: ImageData, runs: dict[int, RunFolder]) -> RunRecord:
    records = {seed: run.read_record() for seed, run in runs.items()}
    compared = compared_images(data)
    alike = _agreements({seed: assign(run.read_model(), compared).argmax(1) for seed, run in runs.items()})
    best, chosen_from = best_seed(records, alike), _eligible(records)
    rows = [
        SeedRecord(
            seed=seed,
            clusters=len(record.clusters),
            view_information=record.health["view_information"],
            agreement=_agreement(alike[seed], chosen_from),
            verdict=record.verdict.status if record.verdict else "none",
            acc={part: score["acc"] for part, score in record.scores.items()},
            kept=seed == best,
        )
        for seed, record in records.items()
    ]
    for source in runs[best].files():
        if source.name != RECORD:
            target = folder.path / source.relative_to(runs[best].path)
            make_folder(target.parent)
            atomic_write(target, source.read_bytes())
    record = records[best]
    record.seeds = rows
    model, config, position = runs[best].read_model(), runs[best].read_config(), read_position(runs[best].path)
    with seeded(best):
        assignment = assign(model, data.images, dropout=config.legacy)
    atomic_write(folder.page, run_report(model, data, assignment, record, config, position.rows))  # now with all seeds
    folder.write_record(record)
    return record


def compared_images(data: ImageData) -> NDArray[np.uint8]:
    """Images that agreement of runs is measured on, (n, H, W, C)."""
    return data.images[scattered(len(data.images), COMPARED)]


def best_seed(records: dict[int, RunRecord], alike: Agreements) -> int:
    """The seed to keep: of the healthy runs, or of all where none is, those with the most frequent K, and of these the one with the largest
    mean adjusted Rand index with the others. Ties, as always between two runs, go to the larger view information."""
    first = _eligible(records)
    return max(first, key=lambda seed: (_agreement(alike[seed], first), records[seed].health["view_information"]))


def _eligible(records: dict[int, RunRecord]) -> list[int]:
    healthy = [seed for seed, record in records.items() if record.verdict is not None and record.verdict.status == "healthy"]
    first = healthy or list(records)
    usual = Counter(len(records[seed].clusters) for seed in first).most_common(1)[0][0]
    return [seed for seed in first if len(records[seed].clusters) == usual]


def _agreement(alike: dict[int, float], others: Iterable[int]) -> float:
    """Mean adjusted Rand index with the other runs in `others`; with all other runs where it has none; 1 where there is no other run."""
    found = [alike[other] for other in others if other in alike] or list(alike.values())
    return math.fsum(found) / len(found) if found else 1.0


def _agreements(clusters: dict[int, NDArray[np.int64]]) -> Agreements:
    """Adjusted Rand index of every two runs, from the clusters (N,) of the same images; the same number both ways, so that ties are
    ties."""
    alike: Agreements = {seed: {} for seed in clusters}
    for one, other in itertools.combinations(clusters, 2):
        alike[one][other] = alike[other][one] = float(adjusted_rand_score(clusters[one], clusters[other]))
    return alike


def folder_of(path: Path) -> RunFolder:
    """The folder whose records describe a planned result: the first run's while none is kept yet. Raises `DataError` before that began."""
    folder = RunFolder(path)
    if is_planned(folder) and not (path / RECORD).is_file():
        first = RunFolder(path / "seeds" / str(read_plan(folder)[0]))
        if not (first.path / RECORD).is_file():
            raise DataError(f"{path} was stopped before its first run began: start it again with --overwrite")
        return first
    return folder
