"""Bad input to `mixture_kl` and `dense_mixture_kl`: a ValueError that names what was found and what was expected."""

import pytest

torch = pytest.importorskip("torch")

from catvae.kernels import dense_mixture_kl, mixture_kl  # noqa: E402

from .problems import dense_values, problem  # noqa: E402


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("v", lambda x: x[:, :-1], r"v must have shape \(5, 4\).*got \(5, 3\)"),
        ("E", lambda x: x[0], r"got m \(5, 4\), E \(4,\)"),
        ("logits", lambda x: x[:4], r"logits must have shape \(5, 3\)"),
        ("F", lambda x: x.double(), "share one of float32, float64.*F float64"),
        ("m", lambda x: x.double(), "share one of float32, float64.*m float64"),
        ("prior", lambda x: x.int(), "share one of float32, float64.*prior int32"),
        ("prior", lambda x: x.requires_grad_(), "prior is a constant"),
        ("m", lambda x: x.to("meta"), "must be on meta"),
        ("logits", lambda x: x.to_sparse(), "logits must be an ordinary"),
    ],
)
def test_bad_tensors(name, change, message):
    values, _ = problem(5, 3, 4)
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=message):
        mixture_kl(*values.values())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mu", lambda x: x[0], r"mu must be \(N, K, D\): got \(3, 4\)"),
        ("lv", lambda x: x[:, :2], r"lv must have shape \(5, 3, 4\)"),
        ("logits", lambda x: x.half().double(), "float64"),
        ("prior", lambda x: x[:, :3], r"prior must have shape \(3, 4\)"),
    ],
)
def test_bad_dense_tensors(name, change, message):
    values = dense_values(problem(5, 3, 4)[0])
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=message):
        dense_mixture_kl(*values.values())


def test_no_clusters_and_wrong_weight():
    values, weight = problem(5, 3, 4)
    with pytest.raises(ValueError, match="K=0"):
        mixture_kl(values["m"], values["v"], *(torch.zeros(0, 4) for _ in range(3)), torch.zeros(5, 0))
    with pytest.raises(ValueError, match="weight must have shape"):
        mixture_kl(*values.values(), weight[:3])
    with pytest.raises(ValueError, match="weight is a constant"):
        mixture_kl(*values.values(), weight.requires_grad_())


def test_sizes_beyond_the_kernels_range():
    """Expanded tensors take no memory, so a caller can present any size."""
    N = (1 << 28) + 1
    wide, few, logits = torch.zeros(1, 1).expand(N, 1), torch.zeros(1, 1), torch.zeros(1, 1).expand(N, 1)
    with pytest.raises(ValueError, match=r"at most 2\^28.*N=268435457"):
        mixture_kl(wide, wide, few, few, few, logits)
    huge = torch.zeros(1, 1).expand(1 << 28, 1 << 28)
    with pytest.raises(ValueError, match=r"N\*K\*D at most 2\^56|at most 2\^28"):
        mixture_kl(huge[:2], huge[:2], huge, huge, huge, torch.zeros(2, 1).expand(2, 1 << 28))
