"""From a run folder to a bundle, and from a bundle to a page or a model repository: the `catvae-export` command."""
