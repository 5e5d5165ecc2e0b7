"""How the threads of PyTorch wait for one another while it trains. Must be said before PyTorch is imported, which reads it once."""

import os

from catvae.kernels import _loader
from catvae.runtime.processors import usable_processors

ROUNDS = "GOMP_SPINCOUNT"
BRIEFLY = "1000"
"""Rounds of a loop that a thread waits in before it goes to sleep; GNU's OpenMP takes 300,000."""
FEW = 4
"""Processors up to which that was found to cost a training that is alone next to nothing (on two, `benchmarks/together.py`); what it costs
to wake the threads of more has not been measured."""


def give_way() -> None:
    """On a machine of few processors, let threads that wait leave their processor to other programs; what the user has set stands.

    Else two trainings on two cores, or one beside any other program that computes, take several times as long as one after the other:
    each waits in a loop for a thread that only runs once the other's turn is over. In plain PyTorch such loops remain in the library of
    its convolutions, which take longer still where the other threads sleep: there nothing is changed.
    """
    if usable_processors() <= FEW and _loader.installed() and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(ROUNDS, BRIEFLY)
