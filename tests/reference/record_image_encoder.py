"""Records what torchvision's EfficientNetV2-S makes of known weights and a known picture.

torchvision's wheels are built for one exact torch; beside a CPU build of torch their compiled
operators do not load. The model itself is plain Python and needs none of them: only their names
must exist for the import. Run in a throwaway environment and commit the result:

    pip install --no-deps torchvision==0.28.0
    python tests/reference/record_image_encoder.py
"""

from pathlib import Path

import torch
from named_weights import named_weights
from safetensors.torch import save_file

RESULT = Path(__file__).parent.parent / "data" / "efficientnet_v2_s.safetensors"


def main() -> None:
    names = torch.library.Library("torchvision", "DEF")
    names.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    names.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import __version__
    from torchvision.models import efficientnet_v2_s

    features = efficientnet_v2_s().features.eval()
    shapes = {f"backbone.{name}": value.shape for name, value in features.state_dict().items()}
    weights = named_weights(shapes)
    features.load_state_dict({name.removeprefix("backbone."): w for name, w in weights.items()})

    pixels = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tensors = {"pixels": pixels, "features": features(pixels)}
    versions = {"torchvision": __version__, "torch": torch.__version__}
    save_file(tensors, RESULT, metadata=versions)
    print(f"{RESULT.name}: {tuple(tensors['features'].shape)}, {versions}")


if __name__ == "__main__":
    main()
