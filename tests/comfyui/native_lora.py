"""Cases of `native_runner.py`: LoRAs and merges of ours behind ComfyUI's ModelPatcher."""

from typing import Any

import torch
from native_optimized import optimize, stage_b
from native_pack import Pack, error, noise
from safetensors.torch import save_file


def write_loras(pack: Pack) -> None:
    """Random files for the demo: LoRA and DoRA on attention, LoHa on MLPs, one for Stage B with
    its folded linears and a mapper, one for the text encoder."""
    folder = pack.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    prior, decoder, tower = (
        pack.demo[part].content() for part in ("stage_c", "stage_b", "prior_text_encoder")
    )
    attention = _pairs(prior.state, ("to_q", "to_v", "to_out.0"), "lora_unet_")
    dora = dict(attention)
    for name, value in prior.state.items():
        if name.endswith("to_q.weight"):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            dora[f"{key}.dora_scale"] = 1.3 * value.float().norm(dim=0, keepdim=True)
    loha = {}
    for name, value in prior.state.items():
        if name.endswith("channelwise.4.weight"):
            for factor, shape in (("a", (len(value), 3)), ("b", (3, value.shape[1]))):
                for number in (1, 2):
                    key = f"prior.{name.removesuffix('.weight')}.hada_w{number}_{factor}"
                    loha[key] = 0.3 * noise(*shape)
    ends = ("to_q", "channelwise.0", "effnet_mappers.1", "depthwise")
    files = {
        "attention": attention,
        "dora": dora,
        "loha": loha,
        "decoder": _pairs(decoder.state, ends, "lora_unet_"),
        "text": {**attention, **_pairs(tower.state, ("q_proj", "fc1"), "lora_te_text_model_")},
    }
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")


def _pairs(state: Any, ends: tuple[str, ...], prefix: str) -> dict[str, torch.Tensor]:
    made = {}
    for name, value in state.items():
        module = name.removesuffix(".weight")
        if module.endswith(ends):
            key = prefix + module.replace(".", "_")
            flat = value.float().flatten(1)
            made[f"{key}.lora_down.weight"] = noise(4, flat.shape[1])
            made[f"{key}.lora_up.weight"] = 0.3 * flat.std() * noise(len(flat), 4)
    return made


def with_lora(pack: Pack, parts: Any, name: str, strength: float = 1.0, **more: Any) -> Any:
    node = pack.nodes["WuerstchenLoadLoRA"]
    outputs = pack.all(
        "WuerstchenLoadLoRA",
        stage_c=parts["stage_c"],
        lora_name=f"{name}.safetensors",
        strength=strength,
        **more,
    )
    made = dict(zip(node.RETURN_NAMES, outputs, strict=True))
    return {**parts, **{each: made[each] for each in ("stage_c", *more) if each in made}}


def _alone(pack: Pack, part: Any) -> Any:
    """A part that holds the changed weights themselves, set without ComfyUI's patches."""
    load = pack.core("checkpoints.load")
    fresh = pack.load("wuerstchen-demo")["stage_c"]
    configs = pack.core("checkpoints.configs")
    network = load.network_of(configs.STAGE_C, part.content(), "float32", torch.device("cpu"))
    fresh.get().load_state_dict(network.state_dict())
    return fresh


def our_loras(pack: Pack) -> dict[str, Any]:
    """Under our samplers and ComfyUI's, beside the plain weights, removed and chained."""
    write_loras(pack)
    plain = pack.ours(pack.demo, steps=4)
    native = pack.ksampler(pack.demo)
    found: dict[str, Any] = {}
    for name in ("attention", "dora", "loha"):
        made = with_lora(pack, pack.demo, name)
        alone = {**pack.demo, "stage_c": _alone(pack, made["stage_c"])}
        ours = pack.ours(made, steps=4)
        found[name] = {
            "ours": error(ours, pack.ours(alone, steps=4)),
            "native": error(pack.ksampler(made), pack.ksampler(alone)),
            "changes": error(ours, plain),
        }
    both = with_lora(pack, with_lora(pack, pack.demo, "dora", 0.7), "loha", 0.5)
    turned = with_lora(pack, with_lora(pack, pack.demo, "loha", 0.5), "dora", 0.7)
    found["order"] = error(pack.ours(both, steps=4), pack.ours(turned, steps=4))
    found["same network"] = float(both["stage_c"].get() is pack.demo["stage_c"].get())
    found["plain again"] = error(pack.ours(pack.demo, steps=4), plain)
    found["native again"] = error(pack.ksampler(pack.demo), native)
    zero = with_lora(pack, pack.demo, "loha", 0.0)
    found["strength 0"] = float(zero["stage_c"] is pack.demo["stage_c"])
    found["listed"] = float("dora.safetensors" in pack.module("nodes.choices").lora_choices())
    return found


def our_loras_in_part(pack: Pack) -> dict[str, Any]:
    """Half of the layers cast and patched when they run, in 8 bits, and compiled."""
    write_loras(pack)
    found: dict[str, Any] = {}
    made = with_lora(pack, with_lora(pack, pack.demo, "dora"), "loha", 0.5)
    x, states = noise(2, 16, 6, 6), pack.texts(pack.demo)[0][0][0].expand(2, -1, -1)
    model = pack("WuerstchenStageCModel", stage_c=made["stage_c"])

    def run() -> torch.Tensor:
        return model.model.apply_model(x, torch.full((2,), 1.0), c_crossattn=states)

    pack.management.load_models_gpu([model])
    whole = run()
    pack.management.unload_all_models()
    model.patch_model(load_weights=False)
    model.load(torch.device("cpu"), lowvram_model_memory=model.model_size() // 2)
    found["low"] = float(model.model.model_lowvram)
    found["in part"] = error(run(), whole)
    model.detach()
    exact, plain = pack.ours(made, steps=4), pack.ours(pack.demo, steps=4)
    for name, switches in (("float8", {"storage": "float8"}), ("compiled", {"compile": "blocks"})):
        ours = pack.ours(optimize(pack, made, **switches), steps=4)
        found[name] = ((ours - exact).norm() / exact.norm()).item()
    found["changes"] = ((exact - plain).norm() / plain.norm()).item()
    return found


def our_lora_with_hooks(pack: Pack) -> dict[str, float]:
    """ComfyUI's LoRA hooks on a MODEL that has one of ours, beside both as patches."""
    write_loras(pack)
    model = pack("WuerstchenStageCModel", stage_c=with_lora(pack, pack.demo, "dora")["stage_c"])
    alone = pack.ksampler(pack.demo, model=model)
    hooks = pack("CreateHookLoraModelOnly", lora_name="attention.safetensors", strength_model=0.5)

    def hooked(conditioning: Any) -> Any:
        return pack(
            "ConditioningSetProperties",
            cond_NEW=conditioning,
            strength=1.0,
            set_cond_area="default",
            hooks=hooks,
        )

    positive, negative = map(hooked, pack.texts(pack.demo))
    texts = {"positive": positive, "negative": negative}
    with_hooks = pack.ksampler(pack.demo, model=model, **texts)
    lora = {"lora_name": "attention.safetensors", "strength_model": 0.5}
    patched = pack.ksampler(pack.demo, model=pack("LoraLoaderModelOnly", model=model, **lora))
    return {
        "error": error(with_hooks, patched),
        "changes": error(with_hooks, alone),
        "without hooks again": error(pack.ksampler(pack.demo, model=model), alone),
    }


def our_lora_on_stage_b(pack: Pack) -> dict[str, float]:
    """Folded linears and a mapper among what is changed."""
    write_loras(pack)
    made = with_lora(pack, pack.demo, "decoder", stage_b=pack.demo["stage_b"])
    latent = pack.ours(pack.demo, steps=4)
    ours, plain = stage_b(pack, made, latent), stage_b(pack, pack.demo, latent)
    load = pack.core("checkpoints.load")
    network = load.stage_b_of(made["stage_b"].content(), "float32", torch.device("cpu"))
    alone = pack.load("wuerstchen-demo")
    alone["stage_b"].get().load_state_dict(network.state_dict())
    return {
        "error": error(ours, stage_b(pack, alone, latent)),
        "changes": error(ours, plain),
        "plain again": error(stage_b(pack, pack.demo, latent), plain),
    }


def our_lora_on_the_text_encoder(pack: Pack) -> dict[str, float]:
    write_loras(pack)
    encoder = pack.demo["prior_text_encoder"]
    before = pack.texts(pack.demo)[0][0][0]
    made = with_lora(pack, pack.demo, "text", prior_text_encoder=encoder, strength_text=0.5)
    ours = pack.texts(made)[0][0][0]
    native = pack("WuerstchenCLIP", text_encoder=made["prior_text_encoder"])
    texts = pack.core("checkpoints.text")
    part = made["prior_text_encoder"]
    alone = texts.text_encoder_of(part.content(), "float32", torch.device("cpu"))
    from native_pack import TEXT

    return {
        "error": error(ours, alone.encode([TEXT])),
        "native": error(pack("CLIPTextEncode", clip=native, text=TEXT)[0][0], ours),
        "changes": error(ours, before),
        "plain again": error(pack.texts(pack.demo)[0][0][0], before),
    }


def our_merge(pack: Pack) -> dict[str, Any]:
    """A merged prior of its own weights, with a LoRA, saved and loaded again."""
    other = pack.load("tiny-2")["stage_c"]
    inputs = {"stage_c_a": pack.tiny["stage_c"], "stage_c_b": other, "dtype": "float32"}
    made = pack("WuerstchenMergeStageC", method="weighted_sum", ratio=0.5, **inputs)
    weights = [part.get().state_dict() for part in (pack.tiny["stage_c"], other)]
    mean = {name: (value.clone() + weights[1][name]) / 2 for name, value in weights[0].items()}
    third = pack.load("tiny")
    third["stage_c"].get().load_state_dict(mean)
    merged = pack.ours({**pack.tiny, "stage_c": made}, steps=4)
    pack("WuerstchenSaveStageC", stage_c=made, filename_prefix="merged", dtype="float32")
    saved = pack.base / "output" / "merged_00001"
    saved.rename(pack.base / "models" / "wuerstchen" / "merged")
    again = pack("WuerstchenLoadStageC", name="merged", dtype="float32")
    return {
        "error": error(merged, pack.ours(third, steps=4)),
        "differs": error(merged, pack.ours(pack.tiny, steps=4)),
        "saved": error(pack.ours({**pack.tiny, "stage_c": again}, steps=4), merged),
        "a stays": error(pack.ours(pack.tiny, steps=4), pack.ours(pack.tiny, steps=4)),
    }


CASES = (
    our_loras,
    our_loras_in_part,
    our_lora_with_hooks,
    our_lora_on_stage_b,
    our_lora_on_the_text_encoder,
    our_merge,
)
