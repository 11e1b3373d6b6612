"""A tiny CLIP text tower, and every layout in which files hold one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from comfyui_wuerstchen.wuerstchen_core.training.demo.tokenizer import build_tokenizer

from ..reference.named_weights import named_weights

State = dict[str, Tensor]
WIDTH, LAYERS, INNER = 64, 2, 128
PROJECTION = "text_projection.weight"


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Written into `folder`, read from there."""
    build_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


class _Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, max(1, width // 64), batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)}
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        inner = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)))
        return x + self.mlp["c_proj"](inner)


class OpenClipText(nn.Module):
    """The text half of open_clip's CLIP, with its names: what its files were trained with."""

    def __init__(self, vocabulary: int, width: int, layers: int, inner: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(77, width))
        self.text_projection = nn.Parameter(torch.empty(width, width))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.token_embedding = nn.Embedding(vocabulary, width)
        blocks = nn.ModuleList(_Block(width, inner) for _ in range(layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_final = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        mask = torch.full((77, 77), -torch.inf).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding
        for block in self.transformer["resblocks"]:
            x = block(x, mask)
        return self.ln_final(x)


def open_clip_tower(vocabulary: int, width: int = WIDTH) -> OpenClipText:
    tower = OpenClipText(vocabulary, width, LAYERS, INNER)
    tower.load_state_dict(named_weights({n: v.shape for n, v in tower.state_dict().items()}))
    return tower.eval()


def transformers_state(open_clip: State) -> State:
    """open_clip's names -> those of CLIPTextModelWithProjection, one by one."""
    state = {
        "text_model.embeddings.token_embedding.weight": open_clip["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": open_clip["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_model.final_layer_norm.weight": open_clip["ln_final.weight"],
        "text_model.final_layer_norm.bias": open_clip["ln_final.bias"],
        PROJECTION: open_clip["text_projection"].T.contiguous(),
    }
    layers = {int(n.split(".")[2]) for n in open_clip if n.startswith("transformer.resblocks.")}
    for layer in sorted(layers):
        theirs = f"transformer.resblocks.{layer}."
        ours = f"text_model.encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            width = open_clip[f"{theirs}attn.in_proj_{kind}"].shape[0] // 3
            for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
                packed = open_clip[f"{theirs}attn.in_proj_{kind}"]
                part = packed[index * width : (index + 1) * width].clone()
                state[f"{ours}self_attn.{name}.{kind}"] = part
            for their_name, our_name in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                state[f"{ours}{our_name}.{kind}"] = open_clip[f"{theirs}{their_name}.{kind}"]
    return state


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def _without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if not name.endswith(names)}


def _clip_l(vocabulary: int, prefix: str) -> State:
    """A narrower tower, as Stable Diffusion XL has beside the one that is meant."""
    tower = OpenClipText(vocabulary, 32, 1, 64).state_dict()
    return _prefixed(prefix, transformers_state({n: torch.ones_like(v) for n, v in tower.items()}))


def _bare(s: State) -> State:
    state = _without(transformers_state(s), PROJECTION, "position_ids")
    return {name.removeprefix("text_model."): value for name, value in state.items()}


_PICTURES = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3),
    "first_stage_model.encoder.conv_in.weight": torch.zeros(4, 3, 3, 3),
}

# What a file is -> its tensors, from those of open_clip's tower.
LAYOUTS: dict[str, Callable[[State], State]] = {
    "transformers": lambda s: _without(transformers_state(s), PROJECTION),
    "transformers 5": _bare,
    "with projection (clip_g.safetensors, SDXL's text_encoder_2)": transformers_state,
    "whole CLIP of transformers": lambda s: {
        **transformers_state(s),
        "logit_scale": torch.ones(()),
        "visual_projection.weight": torch.ones(4, 4),
        "vision_model.encoder.layers.0.layer_norm1.weight": torch.ones(4),
    },
    "open_clip": lambda s: dict(s),
    "whole CLIP of open_clip": lambda s: {
        **s,
        "visual.class_embedding": torch.ones(4),
        "visual.transformer.resblocks.0.ln_1.weight": torch.ones(4),
    },
    "SDXL checkpoint": lambda s: {
        **_PICTURES,
        **_prefixed("conditioner.embedders.1.model.", s),
        **_clip_l(len(s["token_embedding.weight"]), "conditioner.embedders.0.transformer."),
    },
    "SDXL refiner": lambda s: {**_PICTURES, **_prefixed("conditioner.embedders.0.model.", s)},
    "Stable Diffusion 2": lambda s: {**_PICTURES, **_prefixed("cond_stage_model.model.", s)},
    "bundle with several text encoders": lambda s: {
        **_prefixed("text_encoders.clip_g.transformer.", transformers_state(s)),
        **_clip_l(len(s["token_embedding.weight"]), "text_encoders.clip_l.transformer."),
        "text_encoders.t5xxl.transformer.shared.weight": torch.ones(4, 4),
    },
    "Stable Cascade bundle": lambda s: {
        "model.diffusion_model.clip_txt_pooled_mapper.weight": torch.ones(4, 4),
        **_prefixed(
            "text_encoder.clip_g.transformer.", _without(transformers_state(s), PROJECTION)
        ),
        "text_encoder.clip_g.text_projection": s["text_projection"],
    },
}


def reference_states(state: State, ids: Tensor, mask: Tensor) -> Tensor:
    """What transformers' own tower makes of tokens, from open_clip's tensors."""
    vocabulary, width = state["token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        hidden_act="gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    tower = CLIPTextModel(config)
    bare = _bare(state)
    prefixed = any(name.startswith("text_model.") for name in tower.state_dict())
    tower.load_state_dict(_prefixed("text_model." if prefixed else "", bare))
    with torch.no_grad():
        return tower.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
