"""Everything of the kernel that needs torch: the public functions, their checks, the calls into C, the plain-torch form."""

from .bernoulli import bernoulli
from .convolving import convolved
from .doubling import doubled
from .dropout import dropout_relu
from .mixture import dense_mixture_kl, mixture_kl
from .norm import norm_relu
from .plain import MixtureKL

__all__ = ["MixtureKL", "bernoulli", "convolved", "dense_mixture_kl", "doubled", "dropout_relu", "mixture_kl", "norm_relu"]
