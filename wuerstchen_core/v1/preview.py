"""Which colours tokens stand for, as Stage A's codebook itself says."""

import torch

from ..offload import with_weights
from ..preview import Fit, LinearMap
from ..residency import device_of
from ..stage_a import StageA

ENTRIES = 256  # of the codebook, that are decoded to fit the map


@torch.no_grad()
@with_weights
def codebook_map(stage_a: StageA) -> LinearMap:
    """The codebook's entries -> colours: fitted to what entries spread over the codebook are
    decoded to, each as a picture of one cell."""
    codebook = stage_a.vquantizer.codebook(device_of(stage_a))
    some = codebook[:: max(1, len(codebook) // ENTRIES), :, None, None]
    pixels = stage_a.decode(some).clamp(0, 1)
    fitted = Fit.empty(codebook.shape[1]).after(some, pixels, keep=1).solve()
    assert fitted is not None  # there are entries
    return fitted
