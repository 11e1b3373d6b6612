"""Cases of `native_runner.py`: stages that went through Würstchen Optimize."""

import logging
from typing import Any

import torch
from native_pack import Pack, error, noise
from native_parts import write_lora

STAGES = ("stage_c", "stage_b", "stage_a")


def optimize(pack: Pack, parts: dict[str, Any], **switches: Any) -> dict[str, Any]:
    presets = {
        "compile": "off",
        "storage": "as_loaded",
        "residency": "resident",
        "step_cache": 0.0,
        "guidance_end": 1.0,
    }
    stages = {stage: parts[stage] for stage in STAGES}
    made = pack.all("WuerstchenOptimize", **{**presets, **switches}, **stages)
    return {**parts, **dict(zip(STAGES, made, strict=True))}


def stage_b(pack: Pack, parts: dict[str, Any], latent: Any) -> torch.Tensor:
    return pack(
        "WuerstchenStageBSampler",
        stage_b=parts["stage_b"],
        stage_c_latent={"samples": latent},
        seed=1,
        steps=4,
        cfg=0.0,
        sampler_name="ddpm",
        scheduler="uniform",
        denoise=1.0,
    )["samples"]


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square, relative."""
    return ((found - expected).norm() / expected.norm()).item()


def _whole_and_in_part(pack: Pack, model: Any) -> dict[str, float]:
    """A step with all weights loaded, and with half of them cast when they run."""
    x, states = noise(2, 16, 6, 6), pack.texts(pack.demo)[0][0][0].expand(2, -1, -1)

    def run() -> torch.Tensor:
        return model.model.apply_model(x, torch.full((2,), 1.0), c_crossattn=states)

    pack.management.load_models_gpu([model])
    whole = run()
    pack.management.unload_all_models()
    model.patch_model(load_weights=False)
    model.load(torch.device("cpu"), lowvram_model_memory=model.model_size() // 2)
    found = {"low": float(model.model.model_lowvram), "in part": error(run(), whole)}
    model.detach()
    return found


def stored_small(pack: Pack) -> dict[str, Any]:
    """Linears in ComfyUI's own 8-bit layouts: under both kinds of samplers, patched, in part."""
    exact = pack.ours(pack.demo, steps=8)
    exact_b = stage_b(pack, pack.demo, exact)
    lora = write_lora(pack)
    found: dict[str, Any] = {}
    for storage in ("int8", "float8"):
        small = optimize(pack, pack.load("wuerstchen-demo"), storage=storage)
        try:
            ours = pack.ours(small, steps=8)
        except ValueError as refused:
            found[storage] = {"refused": str(refused)}
            continue
        sizes = [p["stage_c"].opened().model_size() for p in (small, pack.demo)]
        model = pack("WuerstchenStageCModel", stage_c=small["stage_c"])
        before = pack.ksampler(small, model=model)
        patched = pack("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=1.0)
        found[storage] = {
            "bytes": sizes[0] / sizes[1],
            "stage c": _apart(ours, exact),
            "stage b": _apart(stage_b(pack, small, exact), exact_b),
            "native": error(pack.custom(small, steps=8), ours),
            "with a LoRA": error(pack.ksampler(small, model=patched), before),
            "unpatched again": error(pack.ksampler(small, model=model), before),
            **_whole_and_in_part(pack, model),
        }
    return found


def compiled_blocks(pack: Pack) -> dict[str, Any]:
    """Blocks through torch.compile behind a ModelPatcher: under both kinds of samplers, patched."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(pack.name).addHandler(handler)
    fast = optimize(pack, pack.demo, compile="cuda_graphs")  # here the same as blocks
    exact, ours = pack.ours(pack.demo, steps=4), pack.ours(fast, steps=4)
    model = pack("WuerstchenStageCModel", stage_c=fast["stage_c"])
    plain = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    lora = write_lora(pack)

    def patched(one: Any) -> torch.Tensor:
        more = pack("LoraLoaderModelOnly", model=one, lora_name=lora, strength_model=1.0)
        return pack.ksampler(pack.demo, model=more, steps=3)

    blocks = [m for m in fast["stage_c"].get().modules() if type(m).__name__.startswith("Compiled")]
    found = {
        "blocks": float(len(blocks)),
        "ours": error(ours, exact),
        "native": error(
            pack.ksampler(pack.demo, model=model), pack.ksampler(pack.demo, model=plain)
        ),
        "with a LoRA": error(patched(model), patched(plain)),
        "plain after it": error(pack.ours(pack.demo, steps=4), exact),
        **_whole_and_in_part(pack, model),
        "heard": [message for message in heard if "uncompiled" in message],
    }
    logging.getLogger(pack.name).removeHandler(handler)
    return found


def shared_weights(pack: Pack) -> dict[str, float]:
    """What needs no weights of its own has none, and what is not used is not read."""
    plain = pack.load("wuerstchen-demo")
    same = optimize(pack, plain, residency="one_stage", step_cache=0.25, guidance_end=0.5)
    small = optimize(pack, plain, storage="float8")
    small["stage_c"].opened()
    unread = float(plain["stage_c"].patcher is None)
    batches: list[int] = []
    hook = (
        same["stage_c"]
        .get()
        .register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    )
    pack.ours(same, steps=8)
    hook.remove()
    return {
        "unread": unread,
        "shared": float(same["stage_c"].opened() is plain["stage_c"].opened()),
        "calls": float(len(batches)),
        "guided": float(batches.count(2)),
    }


def unwired(pack: Pack) -> dict[str, str]:
    """The words of a stage that is not wired into the node, for bridges and samplers."""
    presets = {"compile": "off", "storage": "as_loaded", "residency": "resident"}
    made = pack.all("WuerstchenOptimize", **presets, step_cache=0.0, guidance_end=1.0)
    found = {}
    for stage, node_id in (
        ("stage_c", "WuerstchenStageCModel"),
        ("stage_b", "WuerstchenStageBModel"),
        ("stage_a", "WuerstchenStageAVAE"),
    ):
        try:
            pack(node_id, **{stage: made[STAGES.index(stage)]})
        except Exception as failure:
            found[stage] = f"{type(failure).__name__}: {failure}"
    return found


CASES = (stored_small, compiled_blocks, shared_weights, unwired)
