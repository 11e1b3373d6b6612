"""Würstchen v2 in plain torch: networks, sampling, checkpoints, training."""
