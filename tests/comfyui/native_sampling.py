"""Cases of `native_runner.py`: our stages as MODEL under ComfyUI's samplers."""

from collections.abc import Callable
from typing import Any

import torch
from native_pack import SEED, Pack, error, noise


def reference_sampler(pack: Pack) -> dict[str, float]:
    found = {"29 steps": error(pack.custom(pack.demo), pack.ours(pack.demo))}
    batch = pack.empty(batch=3)
    found["batch"] = error(
        pack.custom(pack.demo, latent=batch), pack.ours(pack.demo, latent_image=batch)
    )
    start = {"samples": 42 * 0.5 * noise(1, 16, 6, 6) - 1}
    settings = {"denoise": 0.6, "steps": 12, "scheduler": "uniform"}
    found["from a latent"] = error(
        pack.custom(pack.demo, latent=start, **settings),
        pack.ours(pack.demo, latent_image=start, **settings),
    )
    found["notebook, no guidance"] = error(
        pack.custom(pack.demo, scheduler="notebook", steps=30, cfg=1.0),
        pack.ours(pack.demo, scheduler="notebook", steps=30, cfg=1.0),
    )
    return found


def custom_advanced(pack: Pack) -> dict[str, float]:
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    positive, negative = pack.texts(pack.demo)
    guider = pack("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0)
    made = pack(
        "SamplerCustomAdvanced",
        noise=pack("RandomNoise", noise_seed=SEED),
        guider=guider,
        sampler=pack("WuerstchenReferenceSampler"),
        sigmas=pack("WuerstchenSigmas", steps=29, scheduler="default", denoise=1.0),
        latent_image=pack.empty(),
    )
    return {"error": error(made["samples"], pack.ours(pack.demo))}


def in_two_halves(pack: Pack) -> dict[str, float]:
    """One walk, cut in two by SplitSigmas: the second half continues where the first stopped."""
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    sigmas = pack("WuerstchenSigmas", steps=12, scheduler="uniform", denoise=1.0)
    high, low = pack.all("SplitSigmas", sigmas=sigmas, step=5)
    euler = pack("KSamplerSelect", sampler_name="euler")
    found = {}
    for name, sampler in (("reference", pack("WuerstchenReferenceSampler")), ("euler", euler)):
        whole = pack.custom(pack.demo, model=model, sampler=sampler, sigmas=sigmas)
        half = pack.custom(pack.demo, model=model, sampler=sampler, sigmas=high)
        rest = pack.custom(
            pack.demo,
            model=model,
            sampler=sampler,
            sigmas=low,
            latent={"samples": half},
            add_noise=False,
        )
        # The reference's noise of the second half starts anew, so only euler's halves are equal.
        found[name] = error(rest, whole)
        found[f"{name} finite"] = float(rest.isfinite().all())
    return found


def near_our_ddim(pack: Pack) -> dict[str, float]:
    """ComfyUI's euler, which is DDIM here, on its simple schedule and ours on uniform steps."""
    settings = {"steps": 40, "cfg": 2.0}
    ddim = pack.ours(pack.demo, scheduler="uniform", sampler_name="ddim", **settings)
    return {"error": error(pack.ksampler(pack.demo, **settings), ddim)}


def ksampler_advanced(pack: Pack) -> dict[str, float]:
    """Two KSampler Advanced in a row equal one."""
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    positive, negative = pack.texts(pack.demo)

    def run(latent: Any, start: int, end: int, add: str, rest: str) -> Any:
        return pack(
            "KSamplerAdvanced",
            model=model,
            add_noise=add,
            noise_seed=SEED,
            steps=8,
            cfg=3.0,
            sampler_name="euler",
            scheduler="simple",
            positive=positive,
            negative=negative,
            latent_image=latent,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise=rest,
        )

    whole = run(pack.empty(), 0, 10_000, "enable", "disable")
    half = run(pack.empty(), 0, 4, "enable", "enable")
    both = run(half, 4, 10_000, "disable", "disable")
    return {"error": error(both["samples"], whole["samples"])}


def stage_b(pack: Pack) -> dict[str, float]:
    latent = {"samples": pack.ours(pack.demo, steps=8), "wuerstchen_size": (200, 256)}
    model = pack("WuerstchenStageBModel", stage_b=pack.demo["stage_b"])
    positive, negative = pack.texts(pack.demo, "decoder")

    def ours(cfg: float, **texts: Any) -> torch.Tensor:
        return pack(
            "WuerstchenStageBSampler",
            stage_b=pack.demo["stage_b"],
            stage_c_latent=latent,
            seed=SEED,
            steps=6,
            cfg=cfg,
            sampler_name="ddpm",
            scheduler="uniform",
            denoise=1.0,
            **texts,
        )["samples"]

    def native(positive: Any, negative: Any, cfg: float, empty: Any) -> Any:
        return pack(
            "SamplerCustom",
            model=model,
            add_noise=True,
            noise_seed=SEED,
            cfg=cfg,
            positive=positive,
            negative=negative,
            sampler=pack("WuerstchenReferenceSampler"),
            sigmas=pack("WuerstchenSigmas", steps=6, scheduler="uniform", denoise=1.0),
            latent_image=empty,
        )

    no_text, empty = pack.all("WuerstchenStageBConditioning", stage_c_latent=latent)
    with_text, _ = pack.all(
        "WuerstchenStageBConditioning", stage_c_latent=latent, conditioning=positive
    )
    stock = pack("StableCascade_StageB_Conditioning", conditioning=positive, stage_c=latent)
    made = native(no_text, no_text, 1.0, empty)
    guided = native(with_text, negative, 2.0, empty)["samples"]
    euler = pack(
        "KSampler",
        model=model,
        seed=SEED,
        steps=4,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        positive=no_text,
        negative=no_text,
        latent_image=empty,
        denoise=1.0,
    )
    return {
        "without text": error(made["samples"], ours(0.0)),
        "with text": error(guided, ours(2.0, positive=positive, negative=negative)),
        "stock conditioning": error(native(stock, negative, 2.0, empty)["samples"], guided),
        "keeps the size": float(made.get("wuerstchen_size") == (200, 256)),
        "euler finite": float(euler["samples"].isfinite().all()),
    }


def stock_samplers(pack: Pack) -> dict[str, float]:
    """Names of samplers and schedulers -> whether all of the result is finite and not wild."""
    import comfy.samplers  # pyright: ignore[reportMissingImports]

    def good(**settings: Any) -> float:
        made = pack.ksampler(pack.demo, **settings)
        return float(made.isfinite().all() and made.abs().max() < 1000)

    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    samplers = {
        name: good(model=model, sampler_name=name, cfg=2.0)
        for name in comfy.samplers.KSampler.SAMPLERS
    }
    schedulers = {
        name: good(model=model, scheduler=name, cfg=2.0)
        for name in comfy.samplers.KSampler.SCHEDULERS
    }
    sigmas = pack("WuerstchenSigmas", steps=6, scheduler="default", denoise=1.0)
    ours = {}
    for name in comfy.samplers.SAMPLER_NAMES:
        made = pack.custom(
            pack.demo,
            model=model,
            cfg=2.0,
            sampler=pack("KSamplerSelect", sampler_name=name),
            sigmas=sigmas,
        )
        ours[f"{name} on our sigmas"] = float(made.isfinite().all() and made.abs().max() < 1000)
    return {**samplers, **schedulers, **ours}


def inpainting(pack: Pack) -> dict[str, float]:
    """Where the mask is 0 the latent stays; elsewhere it is made anew."""
    start = {"samples": pack.ours(pack.demo, steps=8)}
    mask = torch.zeros(1, 256, 256)
    mask[:, :, 128:] = 1
    masked = pack("SetLatentNoiseMask", samples=start, mask=mask)
    found = {}
    results = {
        "euler": pack.ksampler(pack.demo, latent_image=masked),
        "reference": pack.custom(pack.demo, latent=masked),
    }
    for name, made in results.items():
        change = (made - start["samples"]).abs() / start["samples"].abs().max()
        found[f"{name} kept"] = change[..., :2].max().item()
        found[f"{name} made"] = change[..., 4:].max().item()
    return found


def patches(pack: Pack) -> dict[str, Any]:
    model = pack("WuerstchenStageCModel", stage_c=pack.demo["stage_c"])
    without = pack.ksampler(pack.demo, model=model)
    rescaled = pack("RescaleCFG", model=model, multiplier=0.7)
    found: dict[str, Any] = {"RescaleCFG": error(pack.ksampler(pack.demo, model=rescaled), without)}
    refused = {
        "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
        "PerturbedAttentionGuidance": {"scale": 3.0},
    }
    for name, settings in refused.items():
        try:
            pack.ksampler(pack.demo, model=pack(name, model=model, **settings))
            found[name] = ""
        except Exception as failure:
            found[name] = str(failure)
    return found


def interrupt(pack: Pack) -> dict[str, Any]:
    """The third call of the model asks ComfyUI to stop."""
    found: dict[str, Any] = {}
    runs: dict[str, Callable[[], Any]] = {
        "KSampler": lambda: pack.ksampler(pack.demo, steps=20),
        "reference": lambda: pack.custom(pack.demo),
        "ours": lambda: pack.ours(pack.demo),
    }
    for name, run in runs.items():
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                pack.management.interrupt_current_processing()

        hook = pack.demo["stage_c"].get().register_forward_pre_hook(count)
        try:
            run()
            found[name] = "not stopped"
        except pack.management.InterruptProcessingException:
            found[name] = calls
        finally:
            hook.remove()
            pack.management.interrupt_current_processing(False)
    found["runs again"] = float(pack.ksampler(pack.demo).isfinite().all())
    return found


CASES = (
    reference_sampler,
    custom_advanced,
    in_two_halves,
    near_our_ddim,
    ksampler_advanced,
    stage_b,
    stock_samplers,
    inpainting,
    patches,
    interrupt,
)
