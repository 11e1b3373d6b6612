"""A LoRA file -> what it says of each module, whatever trainer wrote it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoints.detect import Kind, detect
from ..checkpoints.read import read_states
from ..errors import LoraError
from .adapters import Adapter, Difference, Dora, LoHa, LoKr, Lora
from .names import ROLES, SCALES

# Module -> role of `names.ROLES` -> tensor.
_Modules = dict[str, dict[str, Tensor]]

# In a file's metadata, where diffusers keeps PEFT's config.
_CONFIG = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoraFile:
    """The content of a file. Modules go by the names that the file has for them.

    weights, biases: what changes a module's weight, and its bias. unknown: tensors of no kind that
    is known here. about: a safetensors file's metadata.
    """

    path: Path
    weights: Mapping[str, Adapter]
    biases: Mapping[str, Adapter]
    unknown: tuple[str, ...]
    about: Mapping[str, str]

    @property
    def modules(self) -> list[str]:
        return [*self.weights, *(name for name in self.biases if name not in self.weights)]


def read_lora(path: Path) -> LoraFile:
    """A .safetensors file, or torch's format, which is read without running code from it.

    Raises LoraError for what is no LoRA or an incomplete one, UnreadableCheckpointError for what
    is no file of weights.
    """
    state = read_states(path)[0]
    modules, unknown = _modules(state)
    if not any(roles.keys() - SCALES for roles in modules.values()):
        raise LoraError(_no_lora(path, state))
    about = _metadata(path)
    weights, biases = {}, {}
    for name, roles in modules.items():
        if "bias_difference" in roles:
            biases[name] = Difference(roles.pop("bias_difference"))
        if roles.keys() - SCALES:
            weights[name] = _adapter(name, roles, about, path)
        else:
            unknown += [f"{name} ({', '.join(roles)})"] if roles else []
    return LoraFile(path, weights, biases, tuple(unknown), about)


def _modules(state: Mapping[str, Tensor]) -> tuple[_Modules, list[str]]:
    """The tensors by module and role, and the names of those without a known one."""
    modules: _Modules = {}
    unknown = []
    for name, tensor in state.items():
        ending, role = next(((e, r) for e, r in ROLES if name.endswith(e)), ("", ""))
        if role:
            modules.setdefault(name.removesuffix(ending), {})[role] = tensor
        else:
            unknown.append(name)
    return modules, unknown


def _no_lora(path: Path, state: Mapping[str, Tensor]) -> str:
    kind = detect(state)
    if kind not in (Kind.UNKNOWN, Kind.LORA):
        return f"{path} is {kind.title}, and a LoRA is expected here: {kind.advice}."
    names = ", ".join(list(state)[:3])
    return (
        f"{path} holds no LoRA, LoHa, LoKr or DoRA ({names}, …); other kinds of adapters are not "
        "supported."
    )


def _adapter(name: str, roles: dict[str, Tensor], about: Mapping[str, str], path: Path) -> Adapter:
    """One module's tensors -> what changes its weight. Raises LoraError where one is missing."""
    try:
        adapter = _direction(name, roles, about)
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        ZeroDivisionError,
    ) as error:
        raise LoraError(
            f"{path} is incomplete or damaged: {name} has {', '.join(roles)}, which is no whole "
            "adapter; download it again."
        ) from error
    if "magnitude" in roles:
        return Dora(adapter, roles["magnitude"])
    if "row_magnitude" in roles:  # PEFT's is always of rows: out, or 1×out×1×1
        magnitude = roles["row_magnitude"].flatten()
        return Dora(adapter, magnitude.reshape(-1, *[1] * (_dimensions(roles) - 1)))
    return adapter


def _direction(name: str, roles: Mapping[str, Tensor], about: Mapping[str, str]) -> Adapter:
    if "difference" in roles:
        return Difference(roles["difference"])
    if "up" in roles or "down" in roles:
        down, up = roles["down"], roles["up"]
        scale = _alpha(name, roles, about, len(down)) / len(down)
        return Lora(down, up, scale, roles.get("middle"))
    if any(role.startswith("hada_") for role in roles):
        rank = len(roles["hada_w1_b"])
        return LoHa(
            roles["hada_w1_a"],
            roles["hada_w1_b"],
            roles["hada_w2_a"],
            roles["hada_w2_b"],
            _alpha(name, roles, about, rank) / rank,
            *((roles["hada_t1"], roles["hada_t2"]) if "hada_t1" in roles else ()),
        )
    first, second = (_kronecker_factor(roles, number) for number in (1, 2))
    ranks = [len(roles[f"lokr_w{n}_b"]) for n in (1, 2) if f"lokr_w{n}_b" in roles]
    if ranks:
        return LoKr(first, second, _alpha(name, roles, about, ranks[0]) / ranks[0])
    # Factors that both are whole have no rank. PEFT still divides by the one in its config; for
    # all others alpha is the rank that there would have been.
    rank = _peft_config(about).get("r")
    scale = _alpha(name, {}, about, rank) / rank if isinstance(rank, int) and rank > 0 else 1.0
    return LoKr(first, second, scale)


def _kronecker_factor(roles: Mapping[str, Tensor], number: int) -> tuple[Tensor, ...]:
    if f"lokr_w{number}" in roles:
        return (roles[f"lokr_w{number}"],)
    core = (roles[f"lokr_t{number}"],) if f"lokr_t{number}" in roles else ()
    return (*core, roles[f"lokr_w{number}_a"], roles[f"lokr_w{number}_b"])


def _dimensions(roles: Mapping[str, Tensor]) -> int:
    """Of the weight that is changed; a linear's is a matrix."""
    return roles["down"].ndim if "down" in roles else 2


def _alpha(name: str, roles: Mapping[str, Tensor], about: Mapping[str, str], rank: int) -> float:
    """What the change is scaled with, over the rank: the file's, or one that changes nothing."""
    if "alpha" in roles:
        return float(roles["alpha"])
    config = _peft_config(about)
    part, _, module = name.removeprefix("base_model.model.").partition(".")
    for prefix, own in ((f"{part}.", module), ("", name)):
        if f"{prefix}lora_alpha" in config:
            patterns = config.get(f"{prefix}alpha_pattern") or {}
            fitting = (value for end, value in patterns.items() if f".{own}".endswith(f".{end}"))
            alpha = float(next(fitting, config[f"{prefix}lora_alpha"]))
            return alpha * rank**0.5 if config.get(f"{prefix}use_rslora") else alpha
    alpha = about.get("ss_network_alpha", "None")
    return rank if alpha == "None" else float(alpha)  # kohya's word for one not given


def _peft_config(about: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's config; in diffusers' files its names begin with the part of the model."""
    try:
        config = json.loads(about.get(_CONFIG, "{}"))
    except ValueError:
        return {}
    if not isinstance(config, dict):
        return {}
    alpha = {"lora_alpha": config["alpha"]} if "alpha" in config else {}  # LoHa's and LoKr's
    return {**config, **alpha}


def _metadata(path: Path) -> Mapping[str, str]:
    """The file's own, and of PEFT's `adapter_model` files the config beside them."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError):  # torch's format has none
        about = {}
    config = path.with_name("adapter_config.json")
    if path.stem == "adapter_model" and config.is_file():
        try:
            return {**about, _CONFIG: config.read_text("utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise LoraError(f"{config} cannot be read ({error}); download it again.") from error
    return about
