"""How the threads of PyTorch wait for one another while it trains. Must be said before PyTorch is imported, which reads it once."""

import os

from catvae.kernels import _loader
from catvae.runtime.processors import usable_processors

SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN_ROUNDS = "1000"
"""Rounds of its loop that a waiting thread makes before it goes to sleep; GNU's OpenMP makes 300,000."""
FEW_PROCESSORS = 4
"""Up to so many processors the short wait is set. On two it costs a training that is alone next to nothing (`benchmarks/together.py`); what
it costs to wake the threads of more has not been measured."""


def give_way() -> None:
    """On a machine of few processors, let threads that wait leave their processor to other programs; what the user has set stands.

    Else two trainings on two cores, or one beside any other program that computes, take several times as long as one after the other:
    each waits in a loop for a thread that only runs once the other's turn is over. In plain PyTorch such loops remain in the library of
    its convolutions, which take longer still where the other threads sleep: there nothing is changed.
    """
    if usable_processors() <= FEW_PROCESSORS and _loader.installed() and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN_ROUNDS)
