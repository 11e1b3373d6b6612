"""v1's Stage B and Stage A, from what lies on their input wires to what lies on their output wire.

A latent of v1's Stage B holds tokens, indices of Stage A's codebook: B×1×H×W whole numbers, float32
as all latents are, on the grid of v2's. Stage C and the image encoder are run by `generate.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..autoencode import Progress, decode, encode
from ..batches import in_parts
from ..conditions import Branch, Condition, Target, Texts, branch_of, on_grid
from ..errors import WireError
from ..generate import check_latent
from ..geometry import stage_b_grid
from ..guidance import Predictor, Scale
from ..layers import NO_WRAPS, Wraps, nchw
from ..memory import samples_at_once
from ..noise import SampleNoise
from ..offload import with_weights
from ..residency import device_of
from ..sampling import Callback
from ..stage_a import StageA
from .paella import Paella, PaellaContext
from .sampling import Known, TokenSettings, renoised, sample

# Root mean square of a Stage C latent: v1's are about 1, v2's about 42.
HIGHEST_LEVEL = 10.0


@torch.no_grad()
@with_weights
def sample_tokens(
    stage_b: Paella,
    embedding: Tensor,
    positive: Texts,
    negative: Texts | None,
    latent: Tensor | None,
    noise: SampleNoise,
    settings: TokenSettings,
    codebook: Tensor | None = None,
    callback: Callback | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """v1's Stage C latent and a text -> tokens B×1×H×W.

    embedding: B×16×h×w, h and w multiples of 3. positive, negative: B×T×byt5_embd, or several
    texts; negative is needed only where `settings.cfg` is not 1. latent: tokens to start from when
    `settings.start` < 1, and to keep where the mask says so, else None. codebook: Stage A's, N×C
    float32, for the mode quant. mask: 1 or B×1×H×W in [0, 1] over the whole canvas, any size;
    tokens of which less than half is to be sampled are kept.
    As in the original, the unconditional branch of guidance reads a zero embedding.
    Raises WireError for channels, sizes, widths or masks that belong elsewhere.
    """
    config, device, batch = stage_b.config, device_of(stage_b), len(embedding)
    check_embedding(embedding, config.effnet_embd)
    size = stage_b_grid((embedding.shape[-2], embedding.shape[-1]))
    given = None if latent is None else tokens_of(latent, config.num_labels)
    if given is None and settings.start < 1:
        raise WireError(
            f"denoise is {settings.start:g}, which starts from a picture; wire tokens of Würstchen "
            "v1 Stage A Encode to `latent_image`, or set denoise to 1."
        )
    if given is not None and given.shape != (batch, *size):
        raise WireError(
            f"latent_image has the shape {(len(given), 1, *given.shape[1:])}; for this Stage C "
            f"latent {(batch, 1, *size)} is expected."
        )
    if given is not None and settings.start == 0:
        return given[:, None].float()
    kept = None if mask is None else on_grid(mask, size, batch)[:, 0] < 0.5
    target = Target("Stage B", batch, config.byt5_embd, size, device)
    own = embedding.float().to(device)

    def branch(embedding: Tensor, texts: Texts, name: str) -> Branch:
        return branch_of(texts, name, target, lambda states: (embedding, states))

    branches, scales = [branch(own, positive, "positive")], list[Scale]()
    if settings.guides:
        if negative is None:
            raise WireError(
                f"cfg goes from {settings.cfg[0]:g} to {settings.cfg[1]:g}, which needs a negative "
                "conditioning; wire an empty text to `negative`, or set both to 1."
            )
        branches.insert(0, branch(torch.zeros_like(own), negative, "negative"))
        cfg = {t: settings.cfg_at(step) for step, t in enumerate(settings.times[:-1])}
        scales.append(lambda t: cfg[t])

    def prepare(embedding: Tensor, text: Tensor) -> PaellaContext:
        return stage_b.prepare(embedding, text, settings.times)

    def run(part: slice, callback: Callback | None) -> Tensor:
        model = Predictor(stage_b, prepare, _of(part, branches), scales)
        draws = noise.of(part)
        random = draws.integers(config.num_labels, size, device)
        start, known = random, None
        if given is not None:
            start = renoised(given[part].to(device), settings.start, random, draws)
        if given is not None and kept is not None:
            known = Known(given[part].to(device), kept[part].to(device))
        codes = None if codebook is None else codebook.to(device)
        return sample(
            model, stage_b.logits, start, random, settings, draws, codes, known, callback
        ).cpu()

    together = sum(map(len, branches))
    most = samples_at_once(stage_b, (batch, 1, *size), together)
    return in_parts(run, batch, most, callback)[:, None].float()


def check_embedding(embedding: Tensor, channels: int) -> None:
    """Raises WireError for what is no Stage C latent of v1."""
    check_latent(embedding, "Stage C", channels)
    level = embedding.float().square().mean().sqrt().item()
    if level > HIGHEST_LEVEL:
        raise WireError(
            f"this Stage C latent's numbers are about {level:.0f} strong, and Würstchen v1's are "
            "about 1: it comes from v2. Use Würstchen v1 Stage C Sampler or v1 Image Encode."
        )


def _of(part: slice, branches: Sequence[Branch]) -> list[list[Condition]]:
    return [[one.of(part) for one in branch] for branch in branches]


@torch.no_grad()
@with_weights
def decode_tokens(
    stage_a: StageA,
    latent: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Tokens B×1×H×W -> pictures in [0, 1], through the codebook. Raises WireError for what are no
    tokens of it."""
    return decode(stage_a, codes_of(stage_a, latent), progress, wraps).clamp_(0, 1)


@torch.no_grad()
@with_weights
def codebook_of(stage_a: StageA) -> Tensor:
    """All entries of Stage A's codebook, N×C float32 on the CPU."""
    return stage_a.vquantizer.codebook(device_of(stage_a)).cpu()


def codes_of(stage_a: StageA, latent: Tensor) -> Tensor:
    """Tokens B×1×H×W -> the codebook's entries, B×C×H×W float32."""
    tokens = tokens_of(latent, stage_a.config.num_vq_embeddings)
    return nchw(stage_a.vquantizer.embedding(tokens.to(device_of(stage_a))).float())


@torch.no_grad()
@with_weights
def encode_tokens(
    stage_a: StageA,
    pixels: Tensor,
    progress: Progress | None = None,
    wraps: Wraps = NO_WRAPS,
) -> Tensor:
    """Pictures in [0, 1], sides multiples of 4 -> tokens B×1×H×W: the nearest of the codebook."""
    codes = encode(stage_a, pixels, progress, wraps).to(device_of(stage_a))
    return stage_a.vquantizer.nearest(codes)[:, None].float().cpu()


def tokens_of(latent: Tensor, count: int) -> Tensor:
    """A latent of tokens, B×1×H×W -> B×H×W int64.

    Raises WireError for a latent of another kind, and for numbers that are no tokens: those of
    blended latents, say, or of another codebook. count: how many tokens there are.
    """
    if latent.ndim != 4 or latent.shape[1] != 1:
        raise WireError(
            f"this latent has the shape {tuple(latent.shape)}; tokens, batch×1×height×width, are "
            "expected here. They come from Würstchen v1 Stage B Sampler or Stage A Encode."
        )
    tokens = latent[:, 0].long()
    if not torch.equal(tokens.to(latent.dtype), latent[:, 0]):
        raise WireError(
            "this latent holds fractions, and tokens are whole numbers; tokens cannot be blended "
            "or resized smoothly."
        )
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < count:
        raise WireError(
            f"this latent holds tokens from {int(tokens.min())} to {int(tokens.max())}, and there "
            f"are 0 to {count - 1}; use the Stage A that belongs to this Stage B."
        )
    return tokens
