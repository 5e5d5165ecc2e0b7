"""Clusters: joint distributions, merging, the choice of K, changes of the output layer, collapse, scores."""
