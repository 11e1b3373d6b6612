"""What fewer calls of the model cost: checker score and distance to 200 steps, on the demo.

    python benchmarks/quality.py            # 7 minutes on one core
    python benchmarks/quality.py --quick    # fewer pictures and settings
    python benchmarks/quality.py --json out.json --plot docs/quality.png

Prompts, seeds and start noise are the same for all settings. A call is one evaluation of the
stage's network for one picture: a guided step makes two. The score is the share of attributes that
the demo's checker reads from the pictures as they were asked for. Pictures of Stage C are decoded
by one and the same Stage B; Stage B reads the Stage C latents of 200 steps. Distances are to 200
steps of dpmpp_2m. Stochastic samplers have none: the noise they draw makes another picture at each
number of steps.
"""

import argparse
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from comfyui_wuerstchen.wuerstchen_core.files import write_atomically
from comfyui_wuerstchen.wuerstchen_core.generate import (
    SamplerSettings,
    decode_pixels,
    sample_stage_b,
    sample_stage_c,
)
from comfyui_wuerstchen.wuerstchen_core.noise import SampleNoise
from comfyui_wuerstchen.wuerstchen_core.pipeline import Pipeline
from comfyui_wuerstchen.wuerstchen_core.sampling import SAMPLERS
from comfyui_wuerstchen.wuerstchen_core.stage_c import from_embedding, to_embedding
from comfyui_wuerstchen.wuerstchen_core.training.demo.captions import canonical
from comfyui_wuerstchen.wuerstchen_core.training.demo.checker import check, score
from comfyui_wuerstchen.wuerstchen_core.training.demo.scenes import all_attributes, is_held_out

DEMO = Path(__file__).parent.parent / "models" / "wuerstchen-demo"
GRID = (6, 6)  # of 256×256 px
FIRST_SEED = 100
CFG = 2.0  # the demo's own
STOCHASTIC = ("ddpm", "dpmpp_2m_sde")

REFERENCE_C = SamplerSettings(200, CFG, "dpmpp_2m", "uniform")
REFERENCE_B = SamplerSettings(200, 0.0, "dpmpp_2m", "uniform")
# Draws the pictures that judge Stage C: few steps do, since all are treated alike.
JUDGING_B = SamplerSettings(3, 0.0, "ddim", "uniform")


@dataclass(frozen=True)
class Result:
    stage: str  # "C" or "B"
    series: str  # the line it belongs to
    setting: str  # its place on that line
    calls: float  # of the network, a picture
    score: float  # share of right attributes
    complete: float  # share of pictures with all of them right
    latent: float | None  # relative distance of the stage's latents, median over pictures
    pixels: float | None  # root mean square difference of pictures in [0, 1]


@dataclass(frozen=True)
class Run:
    latent: Tensor  # in the network's own scale
    pictures: Tensor
    calls: float  # a picture


class Demo:
    """The demo checkpoint, and the prompts that every setting is asked for."""

    def __init__(self, pictures: int) -> None:
        self.pipeline = Pipeline.from_folder(DEMO, dtype="float32")
        held_out = [attributes for attributes in all_attributes() if is_held_out(attributes)]
        self.wanted = random.Random(5).sample(held_out, pictures)
        captions = [canonical(attributes) for attributes in self.wanted]
        self.text_c = self.pipeline.prior_text_encoder.encode(captions)
        self.nothing = self.pipeline.prior_text_encoder.encode([""])
        self.text_b = self.pipeline.decoder_text_encoder.encode(captions)

    def stage_c(self, settings: SamplerSettings) -> Tensor:
        """Stage C latents, on a wire."""
        network, noise = self.pipeline.stage_c, self._noise(len(self.wanted))
        empty = torch.zeros(len(self.wanted), network.config.c_in, *GRID)
        return sample_stage_c(network, self.text_c, self.nothing, empty, noise, settings)

    def stage_b(self, embedding: Tensor, settings: SamplerSettings) -> Tensor:
        """Stage B latents of the first Stage C latents."""
        count, network = len(embedding), self.pipeline.stage_b
        text, noise = self.text_b[:count], self._noise(count)
        return sample_stage_b(network, embedding, text, None, None, noise, settings)

    def pictures(self, latent: Tensor) -> Tensor:
        return decode_pixels(self.pipeline.stage_a, latent)

    def scores(self, pictures: Tensor) -> tuple[float, float]:
        """Shares of right attributes and of wholly right pictures."""
        shares = score(check(pictures), self.wanted[: len(pictures)])
        complete = shares.pop("all")
        return sum(shares.values()) / len(shares), complete

    @staticmethod
    def _noise(count: int) -> SampleNoise:
        return SampleNoise(range(FIRST_SEED, FIRST_SEED + count))


class Calls:
    """Counts the pictures that go through a network."""

    def __init__(self, network: nn.Module) -> None:
        self.total = 0
        network.register_forward_pre_hook(self._count)

    def _count(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.total += len(inputs[0])

    def take(self) -> int:
        """The number since the last time."""
        total, self.total = self.total, 0
        return total


def settings_of_stage_c(quick: bool) -> Iterator[tuple[str, SamplerSettings]]:
    """(line, settings), the published 29 steps of ddpm among them."""
    for name, scheduler in [("ddpm", "default"), *((name, "uniform") for name in SAMPLERS)]:
        for steps in (6, 29) if quick else (3, 5, 8, 12, 20, 29):
            yield f"{name}, {scheduler}", SamplerSettings(steps, CFG, name, scheduler)
    published = SamplerSettings(29, CFG)
    few = SamplerSettings(12, CFG, "dpmpp_2m", "uniform")
    for share in (0.5,) if quick else (0.75, 0.5, 0.25):
        yield "ddpm 29, guidance_end", replace(published, guidance_end=share)
        yield "dpmpp_2m 12 uniform, guidance_end", replace(few, guidance_end=share)
    for change in (0.1,) if quick else (0.05, 0.1, 0.2):
        yield "ddpm 29, step_cache", replace(published, step_cache=change)
        deterministic = replace(published, sampler_name="dpmpp_2m", step_cache=change)
        yield "dpmpp_2m 29, step_cache", deterministic


def settings_of_stage_b(quick: bool) -> Iterator[tuple[str, SamplerSettings]]:
    for name in SAMPLERS:
        for steps in (2, 12) if quick else (2, 4, 8, 12):
            yield f"{name}, uniform", SamplerSettings(steps, 0.0, name, "uniform")


def measured(quick: bool, count: int) -> Iterator[Result]:
    """Stage C's results, then Stage B's for half of the pictures; the references come first."""
    demo = Demo(count)
    calls = Calls(demo.pipeline.stage_c)

    def run_c(settings: SamplerSettings) -> Run:
        latent = demo.stage_c(settings)
        drawn = demo.pictures(demo.stage_b(latent, JUDGING_B))
        return Run(from_embedding(latent), drawn, calls.take() / count)

    best = run_c(REFERENCE_C)
    yield result(demo, "C", "dpmpp_2m, uniform", REFERENCE_C, best, best)
    for series, settings in settings_of_stage_c(quick):
        yield result(demo, "C", series, settings, run_c(settings), best)

    some = to_embedding(best.latent[: count // 2])
    calls = Calls(demo.pipeline.stage_b)

    def run_b(settings: SamplerSettings) -> Run:
        latent = demo.stage_b(some, settings)
        return Run(latent, demo.pictures(latent), calls.take() / len(some))

    best = run_b(REFERENCE_B)
    yield result(demo, "B", "dpmpp_2m, uniform", REFERENCE_B, best, best)
    for series, settings in settings_of_stage_b(quick):
        yield result(demo, "B", series, settings, run_b(settings), best)


def result(
    demo: Demo, stage: str, series: str, settings: SamplerSettings, run: Run, best: Run
) -> Result:
    share, complete = demo.scores(run.pictures)
    apart, root = None, None
    if settings.sampler_name not in STOCHASTIC:
        difference = (run.latent - best.latent).flatten(1).norm(dim=1)
        apart = (difference / best.latent.flatten(1).norm(dim=1)).median().item()
        root = (run.pictures - best.pictures).square().mean().sqrt().item()
    return Result(stage, series, setting_of(settings), run.calls, share, complete, apart, root)


def setting_of(settings: SamplerSettings) -> str:
    """What tells a point of a line from its neighbours."""
    words = [f"{settings.steps} steps"]
    if settings.guidance_end < 1:
        words.append(f"guidance_end {settings.guidance_end}")
    if settings.step_cache > 0:
        words.append(f"step_cache {settings.step_cache}")
    return ", ".join(words)


def table(results: list[Result]) -> Iterator[str]:
    yield "| stage | sampler | setting | calls | score | all right | latent | pixels |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for r in results:
        latent, pixels = ("–" if v is None else f"{v:.3f}" for v in (r.latent, r.pixels))
        yield (
            f"| {r.stage} | {r.series} | {r.setting} | {r.calls:.0f} | {r.score:.3f} "
            f"| {r.complete:.2f} | {latent} | {pixels} |"
        )


def plot(results: list[Result], target: Path) -> None:
    """Score and distance against calls, a row for each stage."""
    from matplotlib.figure import Figure  # of the `train` extra

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    for stage, (left, right) in zip("CB", figure.subplots(2, 2), strict=True):
        best, *rest = [r for r in results if r.stage == stage]
        for series in dict.fromkeys(r.series for r in rest):
            points = sorted((r for r in rest if r.series == series), key=lambda r: r.calls)
            style = {"linewidth": 1.2, "markersize": 4, **style_of(series)}
            calls = [r.calls for r in points]
            left.plot(calls, [r.score for r in points], label=series, **style)
            if points[0].latent is not None:
                right.plot(calls, [r.latent for r in points], **style)
        left.axhline(best.score, color="grey", linewidth=1, linestyle=":", label="200 steps")
        # A narrower view would make chance look like a trend.
        left.set_ylim(min(0.8, *(r.score for r in rest)), 1.01)
        left.set_title(f"Stage {stage}: share of right attributes", fontsize=10)
        right.set_title(f"Stage {stage}: relative distance to 200 steps", fontsize=10)
        right.set_yscale("log")
        left.legend(fontsize=7, loc="lower center", ncols=2)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xlabel("calls of the network for a picture", fontsize=8)
            for number in (axis.xaxis, axis.yaxis):
                number.set_major_formatter("{x:g}")
                number.set_minor_formatter("{x:g}")
            axis.tick_params(which="both", labelsize=7)
            axis.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    with write_atomically(target) as partial:
        few_colours = Image.open(picture).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few_colours.save(partial, format="png", optimize=True)


def style_of(series: str) -> dict[str, str]:
    """A colour for each sampler; the line tells the schedule, the marker the switch."""
    for marker, switch in (("s", "guidance_end"), ("^", "step_cache")):
        if switch in series:
            return {"color": "C7" if "ddpm" in series else "C6", "marker": marker, "ls": ":"}
    name, scheduler = series.split(", ")
    line = "-" if scheduler == "uniform" else "--"
    return {"color": f"C{SAMPLERS.index(name)}", "marker": "o", "ls": line}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pictures and settings")
    parser.add_argument("--pictures", type=int, help="how many prompts (24; quick: 8)")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--plot", type=Path, help="draw score and distance against calls here")
    options = parser.parse_args()
    results: list[Result] = []
    for found in measured(options.quick, options.pictures or (8 if options.quick else 24)):
        results.append(found)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(table(results)))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
