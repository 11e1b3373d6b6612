"""Records what the original repository's v1 modules make of known weights and inputs.

The original needs torchvision and pabloppp/pytorch-tools. Of the latter only `Diffuzz`, which the
repository has itself; torchvision's import needs a word, as `record_image_encoder.py` says. Run in
a throwaway environment and commit the result:

    pip install --no-deps torchvision==0.28.0
    git clone https://github.com/dome272/Wuerstchen original && git -C original checkout a3a8a2a
    python tests/reference/record_v1.py original
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from named_weights import named_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from v1_cases import (
    PAELLA,
    PRIOR,
    PRIOR_CFG,
    PRIOR_STEPS,
    SAMPLED,
    SEED,
    TOKENS,
    inputs,
    layers_of,
    tamed_head,
    tensors_of,
)

RESULT = Path(__file__).parent.parent / "data" / "v1.safetensors"


def original(folder: Path) -> tuple[Any, Any]:
    """Its `modules` and `diffuzz`."""
    names = torch.library.Library("torchvision", "DEF")
    names.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    names.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.path.insert(0, str(folder))
    import diffuzz  # pyright: ignore[reportMissingImports]

    tools = ModuleType("torchtools.utils")
    tools.Diffuzz = diffuzz.Diffuzz  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["torchtools"] = ModuleType("torchtools")
    sys.modules["torchtools.utils"] = tools
    import modules  # pyright: ignore[reportMissingImports]

    return modules, diffuzz


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return named_weights({name: value.shape for name, value in network.state_dict().items()})


@torch.no_grad()
def main(folder: Path) -> None:
    modules, diffuzz = original(folder)
    given = inputs()
    paella = modules.Paella(**PAELLA).eval()
    paella.load_state_dict(weights_of(paella))
    prior = modules.Prior(**PRIOR).eval()
    prior.load_state_dict(tamed_head(weights_of(prior)))

    tokens, embedding, text, t = (given[k] for k in ("tokens", "embedding", "text", "times"))
    tensors = {
        "logits": paella(tokens, t, embedding, text),
        "logits_without_text": paella(tokens, t, embedding, None),
    }
    conditions = {"effnet": embedding[:1], "byt5": text[:1]}
    avoided = {"effnet": torch.zeros_like(embedding[:1]), "byt5": text[1:]}
    for name, options in SAMPLED.items():
        start = tokens[:1] if "t_start" in options else None
        torch.manual_seed(SEED)
        result, _ = modules.sample(
            paella, conditions, (1, *TOKENS), avoided, start, mode="argmax", **options
        )
        tensors[f"sampled_{name}"] = result

    torch.manual_seed(SEED)
    schedule = diffuzz.Diffuzz(device="cpu")
    tensors["prior"] = schedule.sample(
        prior,
        {"c": text[:1]},
        shape=(1, 16, 6, 6),
        timesteps=PRIOR_STEPS,
        cfg=PRIOR_CFG,
        unconditional_inputs={"c": text[1:]},
    )[-1]

    with torch.device("meta"):
        full = modules.Paella(byt5_embd=1024)
        full_prior = modules.Prior(c_in=16, c=1536, c_cond=1024, c_r=64, depth=32, nhead=24)
    from torchvision import __version__
    from torchvision.models import efficientnet_v2_l

    with torch.device("meta"):
        backbone = efficientnet_v2_l().features
    metadata = {
        "paella": tensors_of(full.state_dict()),
        "prior": tensors_of(full_prior.state_dict()),
        "efficientnet_v2_l": layers_of(backbone),
        "torch": torch.__version__,
        "torchvision": __version__,
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, RESULT, metadata)
    print(f"{RESULT.name}: { ({n: tuple(v.shape) for n, v in tensors.items()}) }, {metadata}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
