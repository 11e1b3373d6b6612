"""The text towers as ComfyUI's CLIP, and the same weights behind our own Text Encode."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_model  # pyright: ignore[reportMissingImports]
import comfy.model_management as management  # pyright: ignore[reportMissingImports]
import comfy.sd  # pyright: ignore[reportMissingImports]
import comfy.sd1_clip as sd1_clip  # pyright: ignore[reportMissingImports]
import comfy.supported_models_base as supported_models  # pyright: ignore[reportMissingImports]
import folder_paths  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor, nn

from ...wuerstchen_core.checkpoints.fit import completed, problems_of
from ...wuerstchen_core.checkpoints.text import TowerWeights, open_text_encoder
from ...wuerstchen_core.checkpoints.towers import PREFIX
from ...wuerstchen_core.errors import MismatchedCheckpointError
from ...wuerstchen_core.lora import Changes
from ...wuerstchen_core.optimize import PLAIN, Optimization
from ...wuerstchen_core.residency import pick_dtype, place
from ...wuerstchen_core.text_encoder import TextEncoder
from .. import runtime
from ..parts import Part, Stored
from .patches import patch_of

BIG_G_WIDTH = 1280


class Tower:
    """What `TextEncoder` asks of transformers' CLIPTextModel, answered by ComfyUI's CLIP."""

    def __init__(self, clip: Any, config: Any) -> None:
        self.clip = clip
        self.config = config
        self.compute_device = torch.device("cpu")  # where the tokens go

    def eval(self) -> "Tower":
        return self

    def get_input_embeddings(self) -> nn.Module:
        model = self.clip.cond_stage_model
        return getattr(model, model.clip).transformer.get_input_embeddings()

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """attention_mask is what ComfyUI makes of the ids itself: all up to the end token."""
        model = self.clip.cond_stage_model
        model.reset_clip_options()
        self.clip.load_model()
        model.set_clip_options({"execution_device": self.clip.patcher.load_device})
        states, _ = getattr(model, model.clip).encode(input_ids.tolist())
        return SimpleNamespace(last_hidden_state=states)


class ClipPart(Part[TextEncoder]):
    """A text encoder whose weights ComfyUI changes while it runs."""

    def _kept(self) -> Optimization:
        """Where they lie and how they are stored is ComfyUI's to decide."""
        return PLAIN

    @staticmethod
    def _with_changes(
        network: TextEncoder, stored: Stored, changes: Changes, kept: Optimization
    ) -> TextEncoder:
        tower: Any = network.network
        clip = tower.clip.clone()
        model = clip.cond_stage_model
        own = f"{model.clip}.transformer.{PREFIX}"
        clip.add_patches({own + name: patch_of(of) for name, of in changes.items()})
        encoder = copy.copy(network)
        encoder.network = Tower(clip, tower.config)  # type: ignore[assignment]
        return encoder


def open_clip(path: Path, dtype: str) -> TextEncoder:
    """A text encoder's folder or file -> the encoder, whose `network.clip` is ComfyUI's CLIP.

    Raises CheckpointError, and SettingError for a dtype that the device cannot use.
    """
    weights = open_text_encoder(path, runtime.tokenizer_folders())
    tokenizer: Any = weights.tokenizer
    width = weights.config.hidden_size
    name = "g" if width >= BIG_G_WIDTH else "h"  # LoRAs name the towers so
    device = management.text_encoder_device()
    options = {} if dtype == "auto" else {"dtype": pick_dtype(dtype, device)}

    def make_tokenizer(embedding_directory: Any = None, tokenizer_data: Any = None) -> Any:
        return sd1_clip.SD1Tokenizer(
            clip_name=name,
            tokenizer=lambda **_: sd1_clip.SDTokenizer(
                tokenizer_path=tokenizer.name_or_path,
                embedding_directory=embedding_directory,
                embedding_size=width,
                embedding_key=f"clip_{name}",
                max_length=weights.config.max_position_embeddings,
                pad_token=tokenizer.pad_token_id,
            ),
        )

    def make_model(dtype: torch.dtype, **_: Any) -> Any:
        return _model(weights, name, dtype, path)

    clip = comfy.sd.CLIP(
        supported_models.ClipTarget(make_tokenizer, make_model),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options=options,
    )
    return TextEncoder(tokenizer, Tower(clip, weights.config))  # type: ignore[arg-type]


def _model(weights: TowerWeights, name: str, dtype: torch.dtype, path: Path) -> nn.Module:
    """ComfyUI's tower with these weights, in memory.

    As in the reference: attention masks on, the last layer's states after the final norm.
    """
    tokenizer: Any = weights.tokenizer

    class TextModel(comfy.clip_model.CLIPTextModel):
        def __init__(self, config: Any, dtype: Any, device: Any, operations: Any) -> None:
            super().__init__(config, dtype, device, operations)
            # ComfyUI's own has the usual vocabulary whatever the config says.
            self.text_model.embeddings.token_embedding = operations.Embedding(
                config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
            )
            self.text_projection = nn.Identity()  # nothing reads the pooled state

    model = sd1_clip.SD1ClipModel(
        device="meta",
        dtype=dtype,
        clip_name=name,
        clip_model=lambda **given: sd1_clip.SDClipModel(
            **given,
            textmodel_json_config=weights.config.to_dict(),
            model_class=TextModel,
            max_length=weights.config.max_position_embeddings,
            special_tokens={
                "start": tokenizer.bos_token_id,
                "end": tokenizer.eos_token_id,
                "pad": tokenizer.pad_token_id,
            },
            enable_attention_masks=True,
            return_projected_pooled=False,
        ),
    )
    tower = getattr(model, model.clip).transformer
    state = {PREFIX + key: value for key, value in weights.state.items()}
    expected = tower.state_dict()
    if problems := problems_of(state, expected):
        raise MismatchedCheckpointError(f"{path} does not fit: {'; '.join(problems)}.")
    tower.load_state_dict(completed(state, expected), assign=True)
    return place(model, torch.device("cpu"), dtype)
