"""From a run folder to a bundle: tracing, the parity gate, the manifest, and the `catvae-export` command."""
