"""Finding the parts of Würstchen v1 in a folder of weights."""

from dataclasses import dataclass
from pathlib import Path

from .detect import Kind
from .folder import (
    CLIP_BIGG_WIDTH,
    CLIP_H_WIDTH,
    FolderParts,
    best,
    look_through,
    path_of,
    text_encoder_of,
)

_PART_KINDS = {
    Kind.STAGE_C,
    Kind.STAGE_B_V1,
    Kind.STAGE_A,
    Kind.TEXT_ENCODER,
    Kind.IMAGE_ENCODER_V1,
}

# Part -> what to put into the folder.
PUBLISHED = {
    "stage_c": "model_stage_c.pt of dome272/wuerstchen",
    "stage_b": "model_stage_b.pt of dome272/wuerstchen",
    "stage_a": "vqgan_f4_v1_500k.pt of dome272/wuerstchen",
    "text_encoder": "CLIP-H, the text_encoder and tokenizer folders of warp-ai/wuerstchen",
    "image_encoder": "model_stage_b.pt of dome272/wuerstchen, which holds it beside Stage B",
}


@dataclass(frozen=True)
class PartsV1(FolderParts):
    """Each is a file of weights, which may hold two parts, or a folder of them."""

    stage_c: Path | None = None
    stage_b: Path | None = None
    stage_a: Path | None = None
    text_encoder: Path | None = None
    image_encoder: Path | None = None

    def _wanted(self, part: str) -> str:
        return f"v1 {part.replace('_', ' ')}; put {PUBLISHED[part]} there"


def find_parts_v1(folder: Path) -> PartsV1:
    """Looks through a folder for parts of Würstchen v1: the three published .pt files, and a folder
    with CLIP-H. What weights are is judged by their tensors. Raises UnreadableCheckpointError when
    there is no such folder.
    """
    candidates, unused = look_through(folder, _PART_KINDS)
    stage_c = best(Kind.STAGE_C, candidates, other_width=CLIP_BIGG_WIDTH)
    stage_b = best(Kind.STAGE_B_V1, candidates)
    return PartsV1(
        folder,
        stage_c=path_of(stage_c),
        stage_b=path_of(stage_b),
        stage_a=path_of(best(Kind.STAGE_A, candidates)),
        text_encoder=path_of(text_encoder_of(stage_b or stage_c, CLIP_H_WIDTH, candidates)),
        image_encoder=path_of(best(Kind.IMAGE_ENCODER_V1, candidates)),
        unused=tuple(unused),
    )
