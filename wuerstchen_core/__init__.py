"""Würstchen in plain torch: networks, sampling, checkpoints, training. v2, and v1 in `v1`."""
