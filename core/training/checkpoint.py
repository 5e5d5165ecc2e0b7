"""Everything that must be kept to go on exactly where training stopped: weights, Adam's moments, position. No pickle.

Random numbers need no state: order and noise are functions of (seed, epoch) and (seed, step), see `steps`.
"""

from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from catvae.runtime.errors import DataError, OutputError
from catvae.runtime.files import atomic_write, sha256

SCHEMA = 4


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something done to the clusters while training: K chosen, a collapse acted on."""

    step: int
    what: str


class Position(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`state.json`: where a run stands."""

    schema: int
    start: int
    """Number of the start under way; once all are finished, of the one that goes on."""
    clusters: int
    """K of the network: the chosen one, once it is."""
    step: int = 0
    """Steps taken."""
    start_scores: list[float] = []
    """Scores, in nats, of the starts that are finished; the state is that of the best."""
    group: list[int] = []
    """Cluster each over-cluster was last merged into; empty before the first merge."""
    unequal: bool = False
    """Whether clusters may be of unequal size: asked for, or found at the first merge."""
    class_clusters: list[int] = []
    """Cluster of each class of the given labels; empty while not known."""
    shares: list[float] = []
    """Running shares of the clusters."""
    guard_from: int = 0
    """Step before which the collapse guard waits."""
    guard_acts: int = 0
    bad_steps: int = 0
    """Steps in a row without finite numbers."""
    rewarm: int = 0
    """Step from which the learning rate is warmed up again."""
    events: list[Event] = []
    rows: list[dict[str, float | None]] = []
    """Finished rows of metrics.csv."""
    open_row: dict[str, float] = {}
    """Sums of the epoch under way."""
    seconds: float = 0.0
    """Training time so far."""
    tensors_sha256: str = ""


def weights_bytes(model: torch.nn.Module) -> bytes:
    """The model's parameters and statistics in safetensors form."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; raises `DataError` naming the file."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is not a whole safetensors file: {error}") from error


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file; raises `DataError` when names, shapes or values do not fit."""
    tensors = load_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(f"{path} holds values in {name} that are not finite numbers")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the network described in run.json: {str(error).splitlines()[-1].strip()}") from error


TENSORS, POSITION = "state.safetensors", "state.json"
PREVIOUS = "state.previous.safetensors"
"""The tensors that `state.json` names, while new ones are written: killed at any moment, a run has a matching pair of files."""


def state_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Weights, statistics and Adam's moments in safetensors form."""
    tensors = {f"model/{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{name}": tensor.detach().cpu().contiguous() for name, tensor in moments.items()}
    return save(tensors)


def save_state(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write the tensors, then the position, which names their hash; the earlier tensors stay until both are there."""
    data = state_bytes(model, optimizer)
    position.tensors_sha256 = sha256(data)
    try:
        if (folder / TENSORS).is_file() and not (folder / PREVIOUS).exists():  # else an earlier save failed: these are named by nobody
            (folder / TENSORS).replace(folder / PREVIOUS)
        atomic_write(folder / TENSORS, data)
        atomic_write(folder / POSITION, msgspec.json.format(msgspec.json.encode(position), indent=1))
        (folder / PREVIOUS).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the state of {folder}: {error.strerror or error}") from error


def read_position(folder: Path) -> Position:
    """`state.json` of a run; raises `DataError` when it is missing, damaged or of another schema."""
    path = folder / POSITION
    try:
        position = msgspec.json.decode(path.read_bytes(), type=Position)
    except OSError as error:
        raise DataError(f"{folder} cannot be resumed: no {path.name} ({error.strerror or error})") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if position.schema != SCHEMA:
        raise DataError(f"{path} has schema {position.schema}, this version reads {SCHEMA}")
    return position


def load_state(folder: Path, position: Position, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the tensors that belong to `position`; raises `DataError` when they are missing, torn or of another network."""
    tensor_file = folder / TENSORS
    _settle(folder, position)
    tensors = load_tensors(tensor_file)
    if sha256(tensor_file.read_bytes()) != position.tensors_sha256:
        raise DataError(f"{tensor_file} does not belong to state.json: its sha256 differs")
    try:
        fill_state(tensors, model, optimizer)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{tensor_file} does not fit this run: {str(error).splitlines()[-1].strip()}") from error


def fill_state(tensors: dict[str, Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put tensors that `state_bytes` wrote into a network and its optimiser; raises what torch does where they do not fit."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("adam/"):
            _, index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = _laid_out_as(parameters[int(index)], tensor)
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    wanted: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({**wanted, "state": moments})


def _settle(folder: Path, position: Position) -> None:
    """After a kill in the middle of `save_state`: keep whichever tensors the position names."""
    previous = folder / PREVIOUS
    try:
        if previous.is_file():
            if sha256(previous.read_bytes()) == position.tensors_sha256:
                previous.replace(folder / TENSORS)
            else:
                previous.unlink()
    except OSError as error:
        raise DataError(f"cannot read the state of {folder}: {error.strerror or error}") from error


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """`moment` in the memory order of its parameter: fused Adam walks both as flat memory, and convolutions are stored channels last."""
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
