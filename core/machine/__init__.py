"""The machine a run has: device, precision and seeds, processes that train together, how threads wait."""
