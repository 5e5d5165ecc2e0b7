"""Measurements: each script prints its rows, the losing ones too, and writes them to `results/` with machine, versions and commit."""
