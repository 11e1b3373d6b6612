"""Numbers that published folders state beside the weights, and that this code computes with.

They are the same in every released file. A folder that states others would give silently wrong
pictures, so it is refused.
"""

import json
from pathlib import Path

from ..errors import MismatchedCheckpointError, UnreadableCheckpointError
from ..schedule import SCALER, S
from ..stage_c import LATENT_MEAN, LATENT_STD

# File -> field -> value.
_STATED = {
    "model_index.json": {
        "latent_mean": LATENT_MEAN,
        "latent_std": LATENT_STD,
        "resolution_multiple": 42.67,  # px of a Stage C cell; see geometry.py
        "latent_dim_scale": 10.67,  # Stage B cells of a Stage C cell
    },
    "scheduler/scheduler_config.json": {"s": S, "scaler": SCALER},
}


def check_constants(repository: Path) -> None:
    """Raises MismatchedCheckpointError where a published folder states another number."""
    for name, expected in _STATED.items():
        path = repository / name
        if not path.is_file():
            continue
        try:
            stated = json.loads(path.read_text("utf-8"))
            different = {
                field: stated[field]
                for field, value in expected.items()
                if field in stated and float(stated[field]) != value
            }
        except (OSError, ValueError, TypeError) as error:
            raise UnreadableCheckpointError(
                f"{path} cannot be read; copy the published one there."
            ) from error
        for field, value in different.items():
            raise MismatchedCheckpointError(
                f"{path} states {field} {value}; only {expected[field]}, as in every published "
                "folder, is supported."
            )
