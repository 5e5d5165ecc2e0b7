"""Where training computes, with how many threads and in which precision, the seeding of its noise there, and the memory it frees."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

from catvae.runtime.errors import DeviceError
from catvae.runtime.processors import usable_processors

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt: bytes free at the end of the heap, and bytes of one allocation, from which on the system is involved."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user says how many threads PyTorch has."""


def stay_within_quota() -> None:
    """Have no more threads than this process may keep busy; a number that the user has set stands.

    PyTorch counts the processors of the machine. In a container that is granted the time of two out of 64, the system would stop all of its
    threads for most of each tenth of a second, while those that are done wait in loops for those that are not.
    """
    if not any(name in os.environ for name in THREADS):
        torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))


def keep_freed_memory() -> None:
    """Let this process keep what its tensors free: glibc hands large pieces back, and the system clears every page of the next step's anew.

    For programs that train and end: until then their memory does not shrink. Nothing happens where the C library is another.
    """
    try:
        option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl has none, nor has macOS; Windows has no such handle
        return
    # Older versions refuse more than 32 MB; the second option alone would only stop glibc from learning.
    if option(MMAP_THRESHOLD, 2**30) or option(MMAP_THRESHOLD, 2**25):
        option(TRIM_THRESHOLD, 2**31 - 1)


def resolve_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``; raises `DeviceError` when CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch sees no CUDA device here (driver or CUDA build of torch missing); use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; `auto` takes bf16 where it is computed natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def seed_noise(device: torch.device, seed: int) -> None:
    """Seed the default generators of the CPU and of `device`.

    torch.manual_seed would seed every GPU, and formats a stack trace for every absent accelerator: 1 ms a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


CPU = torch.device("cpu")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """The default generators of the CPU and of `device` begin at `seed` inside, and go on where they were outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_noise(device, seed)
        yield


def mix(seed: int, index: int) -> int:
    """63 well mixed bits of (seed, index), by the finaliser of splitmix64."""
    x = (seed * 0x9E3779B97F4A7C15 + index + 1) & 0xFFFFFFFFFFFFFFFF
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFFFFFFFFFF
    return x >> 1
