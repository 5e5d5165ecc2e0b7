"""Every value test runs on the CPU and, where there is a GPU and the CUDA library, on it as well."""

import importlib.util

import pytest


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["cpu"]
    import torch

    from catvae.kernels import _loader

    return ["cpu", "cuda"] if torch.cuda.is_available() and _loader.runs("cuda", torch.cuda.current_device()) else ["cpu"]


@pytest.fixture(params=_devices())
def device(request) -> str:
    return request.param
