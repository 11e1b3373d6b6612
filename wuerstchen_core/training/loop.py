"""The training loop: one mechanism for every stage; it can be stopped and resumed at any moment."""

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import SettingError
from ..files import write_atomically
from .ema import Ema
from .plots import plot_losses

log = logging.getLogger(__name__)


class Task(Protocol):
    """What is trained: a network, its loss, and how progress is judged."""

    @property
    def network(self) -> nn.Module: ...

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Named parts of the loss; their sum is minimised. All randomness from `generator`."""
        ...

    def probe(self, network: nn.Module) -> dict[str, float]:
        """Cheap measurements of the averaged network that tell what the final score will be."""
        ...

    def sheet(self, network: nn.Module) -> Image.Image | None:
        """Sample pictures of the averaged network."""
        ...


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast: the learning rate warms up linearly, then falls as a cosine."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    clip_norm: float = 1.0
    autocast: bool = True  # bfloat16 where it is faster; the output heads stay float32
    probe_every: int = 500
    save_seconds: float = 60.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step as a share of the highest one."""
        warm = min(1.0, (step + 1) / self.warmup)
        progress = min(1.0, step / self.steps)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Every step draws from a generator of its own, so a resumed run draws what it would have."""
    return torch.Generator().manual_seed((seed << 32) + step)


def train(task: Task, settings: TrainSettings, folder: Path) -> nn.Module:
    """Trains until `settings.steps`, resuming from `folder`; gives the averaged network.

    folder: `checkpoint.pt` (network, average, optimizer, step), `log.jsonl`, plots and sheets.
    Ctrl-C between two steps saves a checkpoint; within one, at most `save_seconds` are lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(task, settings, folder)
    run.resume()
    try:
        run.steps()
    except KeyboardInterrupt:
        if run.between_steps:  # else the last regular checkpoint is the newest whole one
            run.save()
        raise
    return run.ema.network


Network = TypeVar("Network", bound=nn.Module)


def averaged(folder: Path, network: Network) -> Network:
    """Fills `network` with the averaged weights that `train` left in `folder`, in eval mode.

    Raises SettingError where nothing has been trained yet.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise SettingError(f"{folder.name} has not been trained yet; train it first.")
    network.load_state_dict(torch.load(path, weights_only=True)["ema"])
    return network.eval().requires_grad_(False)


class _Run:
    """The state of one training: what a checkpoint holds, and the loop over it."""

    def __init__(self, task: Task, settings: TrainSettings, folder: Path) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.step = 0
        self.between_steps = True
        self.ema = Ema(task.network, settings.ema_decay)
        self.optimizer = torch.optim.AdamW(
            _decay_groups(task.network.named_parameters(), settings.weight_decay),
            lr=settings.learning_rate,
            betas=settings.betas,
        )

    def resume(self) -> None:
        path, log_path = self.folder / "checkpoint.pt", self.folder / "log.jsonl"
        if not path.exists():
            log_path.unlink(missing_ok=True)
            return
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.task.network.load_state_dict(state["network"])
        self.ema.network.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        _truncate_log(log_path, self.step)
        log.info("resuming %s at step %d", self.folder.name, self.step)

    def save(self) -> None:
        state = {
            "step": self.step,
            "network": self.task.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with write_atomically(self.folder / "checkpoint.pt") as partial:
            torch.save(state, partial)

    def steps(self) -> None:
        settings = self.settings
        saved = time.monotonic()
        bar = tqdm(
            total=settings.steps, initial=self.step, desc=self.folder.name, dynamic_ncols=True
        )
        with bar, (self.folder / "log.jsonl").open("a", encoding="utf-8") as logfile:
            while self.step < settings.steps:
                losses = self._one_step()
                bar.update()
                bar.set_postfix(losses, refresh=False)
                reports = self.step % settings.probe_every == 0 or self.step == settings.steps
                record = {"step": self.step, **losses, **(self._report() if reports else {})}
                logfile.write(json.dumps(record) + "\n")
                if reports:
                    logfile.flush()
                    plot_losses(self.folder / "log.jsonl", self.folder / "loss.png")
                if time.monotonic() - saved > settings.save_seconds:
                    logfile.flush()
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _one_step(self) -> dict[str, float]:
        settings, network = self.settings, self.task.network
        self.between_steps = False
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.rate(self.step)
        network.train()
        device = next(network.parameters()).device.type
        # Dropout and stochastic depth draw from torch's global generator: it is seeded too.
        with torch.random.fork_rng():
            torch.manual_seed((settings.seed << 32) + self.step)
            with torch.autocast(device, torch.bfloat16, enabled=settings.autocast):
                losses = self.task.loss(self.step, step_generator(settings.seed, self.step))
            total = torch.stack(list(losses.values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        if torch.isfinite(norm):  # a bad batch is skipped, as in the published script
            self.optimizer.step()
        self.step += 1
        self.ema.update(network, self.step)
        self.between_steps = True
        return {name: round(value.item(), 5) for name, value in losses.items()}

    def _report(self) -> dict[str, float]:
        network = self.ema.network
        with torch.no_grad():
            found = {name: round(value, 4) for name, value in self.task.probe(network).items()}
            sheet = self.task.sheet(network)
        if sheet is not None:
            with write_atomically(self.folder / f"sheet_{self.step:06d}.png") as partial:
                sheet.save(partial, format="PNG")
        tqdm.write(f"{self.folder.name} {self.step}: {json.dumps(found)}")
        return found


def _decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, object]]:
    """Weight decay for matrices only; biases, norms and scalars go free."""
    matrices, others = [], []
    for _, parameter in parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _truncate_log(path: Path, step: int) -> None:
    """Drops lines after the checkpoint, and one cut off in the middle by a crash."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            continue
    with write_atomically(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")
