"""Cases of `native_runner.py`: weights, VAE, CLIP, LoRAs and memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from native_pack import GENERATOR, SEED, TEXT, Pack, error, noise


def declarations(pack: Pack) -> dict[str, Any]:
    """What our nodes say of themselves, in the form of locales/en/nodeDefs.json."""
    native = pack.module("nodes.native")
    found = {}
    for node_id, (node, title) in native.NODES.items():
        inputs = {k: v for group in node.INPUT_TYPES().values() for k, v in group.items()}
        found[node_id] = {
            "display_name": title,
            "description": node.DESCRIPTION,
            "inputs": {
                name: {"name": name, "tooltip": options["tooltip"]}
                for name, (_, options) in inputs.items()
            },
            "outputs": {
                str(i): {"name": name, "tooltip": tooltip}
                for i, (name, tooltip) in enumerate(
                    zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True)
                )
            },
        }
    return found


def plain_python(pack: Pack) -> dict[str, float]:
    """Our own nodes on weights that ComfyUI moves, and the core alone on the same files."""
    load, generate = pack.core("checkpoints"), pack.core("generate")
    settings = generate.SamplerSettings(8, 4.0)
    states = [pack.texts(pack.tiny, role) for role in ("prior", "decoder")]
    draw = pack.core("noise").SampleNoise
    stage_c = load.load_stage_c(pack.path("stage_c"), "float32")
    (positive, negative), (text, other) = [[c[0][0] for c in both] for both in states]
    latent = pack.empty()["samples"]
    plain = generate.sample_stage_c(stage_c, positive, negative, latent, draw([SEED]), settings)
    found = {"stage_c": error(pack.ours(pack.tiny, steps=8), plain)}

    stage_b = load.load_stage_b(pack.path("stage_b"), "float32")
    settings = generate.SamplerSettings(4, 2.0, scheduler="uniform")
    plain_b = generate.sample_stage_b(stage_b, plain, text, other, None, draw([SEED]), settings)
    latent_b = pack(
        "WuerstchenStageBSampler",
        stage_b=pack.tiny["stage_b"],
        stage_c_latent={"samples": plain},
        positive=states[1][0],
        negative=states[1][1],
        seed=SEED,
        steps=4,
        cfg=2.0,
        sampler_name="ddpm",
        scheduler="uniform",
        denoise=1.0,
    )["samples"]
    found["stage_b"] = error(latent_b, plain_b)

    stage_a = load.load_stage_a(pack.path("stage_a"), "float32")
    decoded = pack(
        "WuerstchenStageADecode", stage_a=pack.tiny["stage_a"], samples={"samples": plain_b}
    )
    found["stage_a"] = error(decoded.movedim(-1, 1), generate.decode_pixels(stage_a, plain_b))

    picture = torch.rand(1, 128, 256, 3, generator=GENERATOR)
    encoder = load.load_image_encoder(pack.path("image_encoder"), "float32")
    encoded = pack(
        "WuerstchenImageEncode", image_encoder=pack.tiny["image_encoder"], pixels=picture
    )
    plain_e = generate.encode_embedding(encoder, picture.movedim(-1, 1), (3, 6))
    found["image_encoder"] = error(encoded["samples"], plain_e)

    for role, states_of in zip(("prior", "decoder"), (positive, text), strict=True):
        tower = load.load_text_encoder(pack.path(f"{role}_text_encoder"), "float32")
        found[f"{role}_text_encoder"] = error(states_of, tower.encode([TEXT]))
    return found


def write_lora(pack: Pack) -> str:
    """A random LoRA for the demo's Stage C, in the usual trainers' names."""
    from safetensors.torch import save_file

    folder = pack.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    lora = {}
    for name, value in pack.demo["stage_c"].get().state_dict().items():
        if name.endswith(("to_q.weight", "to_out.0.weight", "channelwise.0.weight")):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            lora[f"{key}.lora_down.weight"] = 0.1 * noise(4, value.shape[1])
            lora[f"{key}.lora_up.weight"] = 0.1 * noise(value.shape[0], 4)
    save_file(lora, folder / "random.safetensors")
    return "random.safetensors"


def lora(pack: Pack) -> dict[str, float]:
    name = write_lora(pack)
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    without = pack.ksampler(pack.demo, model=model)

    def with_strength(strength: float) -> Any:
        return pack("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength)

    before = pack.ours(pack.demo, steps=4)
    strong = with_strength(1.0)
    network = pack.demo["stage_c"].get()
    return {
        "patched": len(strong.patches) / (3 * network.config.depth),
        "strength 0": error(pack.ksampler(pack.demo, model=with_strength(0.0)), without),
        "strength 1": error(pack.ksampler(pack.demo, model=strong), without),
        "our sampler after it": error(pack.ours(pack.demo, steps=4), before),
        "unpatched again": error(pack.ksampler(pack.demo, model=model), without),
    }


def merge(pack: Pack) -> dict[str, float]:
    """Two priors of the same size: the merge samples like a network of the mean weights."""
    other = pack.load("tiny-2")["stage_c"]
    models = [pack("WuerstchenStageCModel", stage_c=part) for part in (pack.tiny["stage_c"], other)]
    merged = pack("ModelMergeSimple", model1=models[0], model2=models[1], ratio=0.5)
    made = pack.ksampler(pack.tiny, model=merged)
    alone = pack.ksampler(pack.tiny, model=models[0])
    weights = [part.get().state_dict() for part in (pack.tiny["stage_c"], other)]
    mean = {name: (value.clone() + weights[1][name]) / 2 for name, value in weights[0].items()}
    # A part of its own, so that the mean is set without ComfyUI's help.
    third = pack.load("tiny")
    third["stage_c"].get().load_state_dict(mean)
    expected = pack.ksampler(third)
    return {"error": error(made, expected), "differs": error(made, alone)}


def vae(pack: Pack) -> dict[str, float]:
    stage_a = pack.demo["stage_a"]
    native = pack("WuerstchenStageAVAE", stage_a=stage_a)
    latent = {"samples": 0.4 * noise(2, 4, 96, 64)}
    ours = pack("WuerstchenStageADecode", stage_a=stage_a, samples=latent)
    tiled = pack(
        "VAEDecodeTiled",
        vae=native,
        samples=latent,
        tile_size=128,
        overlap=32,
        temporal_size=64,
        temporal_overlap=8,
    )
    picture = torch.rand(2, 256, 128, 3, generator=GENERATOR)
    encoded = pack("WuerstchenStageAEncode", stage_a=stage_a, pixels=picture)["samples"]
    sizes = [
        native.memory_used_decode(shape, native.vae_dtype) for shape in ((1, 4, 256, 256),) * 2
    ]
    stock_estimate = 2178 * 256 * 256 * 64 * 4
    return {
        "decode": error(pack("VAEDecode", vae=native, samples=latent), ours),
        "tiled": (tiled - ours).abs().mean().item(),
        "encode": error(pack("VAEEncode", vae=native, pixels=picture)["samples"], encoded),
        "encode tiled finite": float(
            pack(
                "VAEEncodeTiled",
                vae=native,
                pixels=picture,
                tile_size=64,
                overlap=16,
                temporal_size=64,
                temporal_overlap=8,
            )["samples"]
            .isfinite()
            .all()
        ),
        "same weights": float(native.first_stage_model is stage_a.get()),
        "share of ComfyUI's estimate": sizes[0] / stock_estimate,
    }


def clip(pack: Pack) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, parts in (("tiny", pack.tiny), ("demo", pack.demo)):
        for role in ("prior", "decoder"):
            encoder = parts[f"{role}_text_encoder"]
            native = pack("WuerstchenCLIP", text_encoder=encoder)

            def encode(text: str, native: Any = native) -> torch.Tensor:
                return pack("CLIPTextEncode", clip=native, text=text)[0][0]

            def ours(text: str, encoder: Any = encoder) -> torch.Tensor:
                return pack("WuerstchenTextEncode", text_encoder=encoder, text=text)[0][0]

            plain = ours(TEXT)
            found[f"{name} {role}"] = error(encode(TEXT), plain)
            found[f"{name} {role} empty"] = error(encode(""), ours(""))
            weighted = encode("a large (red star:1.5) on a blue background")
            found[f"{name} {role} weighted"] = error(weighted, plain)
            folder = pack.base / "models" / "embeddings"
            folder.mkdir(exist_ok=True)
            width = plain.shape[-1]
            torch.save({"string_to_param": {"*": noise(2, width)}}, folder / f"e{width}.pt")
            taught = encode(f"a star embedding:e{width}")
            found[f"{name} {role} embedding"] = error(taught, encode("a star"))
    return found


def memory(pack: Pack) -> dict[str, float]:
    """What ComfyUI counts, and that weights survive being unloaded."""
    parts = pack.load("wuerstchen-demo")
    before = pack.ours(parts, steps=4)
    patcher = parts["stage_c"].opened()
    loaded = [held.model for held in pack.management.current_loaded_models]
    weights = sum(p.nbytes for p in parts["stage_c"].get().parameters())
    counted = patcher.model_size() / weights
    native = pack("WuerstchenStageCModel", stage_c=parts["stage_c"])
    same = native.model.diffusion_model is parts["stage_c"].get()
    pack.management.unload_all_models()
    gone = [held.model for held in pack.management.current_loaded_models]
    return {
        "is loaded": float(any(one is patcher for one in loaded)),
        "counted over real": counted,
        "unloaded": float(not gone),
        "same after reload": error(pack.ours(parts, steps=4), before),
        "same weights": float(same),
        "needed at 1024": float(parts["stage_c"].get().memory_needed((2, 16, 24, 24))),
        "its estimate is the model's": float(
            native.model.memory_required([2, 16, 24, 24])
            == parts["stage_c"].get().memory_needed((2, 16, 24, 24))
        ),
    }


def manual_cast(pack: Pack) -> dict[str, Any]:
    """Weights in half precision and in float8, as ComfyUI's command line can ask for."""
    from comfy.cli_args import args  # pyright: ignore[reportMissingImports]

    exact = pack.ours(pack.demo, steps=8)
    found: dict[str, Any] = {}
    for name, option in (("bfloat16", "bf16_unet"), ("float8", "fp8_e4m3fn_unet")):
        setattr(args, option, True)
        parts = {**pack.demo, "stage_c": pack.load("wuerstchen-demo", "auto")["stage_c"]}
        network = parts["stage_c"].get()
        setattr(args, option, False)
        found[f"{name} stored"] = str(network.projection.weight.dtype)
        found[f"{name} head"] = str(network.out[1].weight.dtype)
        found[f"{name} ours"] = error(pack.ours(parts, steps=8), exact)
        found[f"{name} native"] = error(pack.custom(parts, steps=8), pack.ours(parts, steps=8))
        found[f"{name} head computes in"] = _head_dtype(pack, parts)
    return found


def _head_dtype(pack: Pack, parts: dict[str, Any]) -> str:
    seen: set[str] = set()
    hook = (
        parts["stage_c"]
        .get()
        .out.register_forward_hook(lambda module, inputs, output: seen.add(str(output.dtype)))
    )
    pack.ksampler(parts, steps=1)
    hook.remove()
    return ", ".join(sorted(seen))


def partly_loaded(pack: Pack) -> dict[str, Any]:
    """Half of the layers left to be cast when they run, as in little VRAM, and a LoRA on them."""
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    patched = pack(
        "LoraLoaderModelOnly", model=model, lora_name=write_lora(pack), strength_model=0.3
    )
    x, states = noise(2, 16, 6, 6), pack.texts(pack.demo)[0][0][0]

    def run(patcher: Any) -> torch.Tensor:
        context = states.expand(2, -1, -1)
        return patcher.model.apply_model(x, torch.full((2,), 1.0), c_crossattn=context)

    found = {}
    for name, patcher in (("plain", model), ("with a LoRA", patched)):
        pack.management.load_models_gpu([patcher])
        whole = run(patcher)
        pack.management.unload_all_models()
        patcher.patch_model(load_weights=False)
        patcher.load(torch.device("cpu"), lowvram_model_memory=patcher.model_size() // 2)
        found[f"{name} low"] = float(patcher.model.model_lowvram)
        found[name] = error(run(patcher), whole)
        patcher.detach()
    return found


def wrong_wires(pack: Pack) -> dict[str, str]:
    """The words for what does not fit."""
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    decoder = pack("WuerstchenStageBModel", stage_b=pack.demo["stage_b"])
    text = pack.texts(pack.demo, "decoder")[0]
    latent = {"samples": torch.zeros(1, 4, 64, 64)}
    carrying, _ = pack.all("WuerstchenStageBConditioning", stage_c_latent=pack.empty())

    def b(**changes: Any) -> Any:
        wires = {"model": decoder, "cfg": 1.0, "positive": text, "negative": text}
        return pack.ksampler(pack.demo, **{**wires, "latent_image": latent, **changes})

    cases: dict[str, Callable[[], Any]] = {
        "text": lambda: pack.ksampler(pack.demo, model=model, positive=text),
        "no stage c": lambda: b(),
        "size": lambda: b(positive=carrying, latent_image={"samples": torch.zeros(1, 4, 32, 32)}),
        "cells": lambda: pack(
            "WuerstchenStageBConditioning", stage_c_latent={"samples": torch.zeros(1, 16, 5, 6)}
        ),
    }
    found = {}
    for name, case in cases.items():
        try:
            case()
            found[name] = ""
        except Exception as failure:
            found[name] = f"{type(failure).__name__}: {failure}"
    return found


def preview_colours(pack: Pack) -> dict[str, float]:
    """ComfyUI's previews of Stage C's and B's latents show the colours of our maps."""
    import latent_preview  # pyright: ignore[reportMissingImports]

    previews, core = pack.module("nodes.previews"), pack.core("preview")
    found = {}
    for stage, node_id, shape in (
        ("stage_c", "WuerstchenStageCModel", (1, 16, 6, 6)),
        ("stage_b", "WuerstchenStageBModel", (1, 4, 64, 64)),
    ):
        part = pack.demo[stage]
        colours = pack(node_id, **{stage: part}).model.latent_format
        shown = latent_preview.Latent2RGBPreviewer(
            colours.latent_rgb_factors, colours.latent_rgb_factors_bias
        ).decode_latent_to_preview(x0 := noise(*shape))
        cells = core.cells_of(core.on_wire(part.get().config, x0[0]))
        expected = previews.known_map(part).colours(cells).clip(0, 1) * 255
        found[stage] = float(abs(np.asarray(shown, dtype=np.float64) - expected).max())
    return found


CASES = (
    declarations,
    plain_python,
    lora,
    merge,
    vae,
    clip,
    memory,
    manual_cast,
    partly_loaded,
    wrong_wires,
    preview_colours,
)
