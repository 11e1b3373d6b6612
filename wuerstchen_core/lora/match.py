"""Which tensors of a network a LoRA file changes, and what is said of those that it does not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..checkpoints.peek import names_in
from ..computed import stored
from ..errors import LoraError
from .adapters import Adapter
from .names import DENOISER, FOREIGN, TEXT_ENCODER, WRAPPERS
from .read import LoraFile

# The tensor's name -> its changes, each with its strength.
Changes = Mapping[str, Sequence[tuple[Adapter, float]]]
NO_CHANGES: Changes = {}


@dataclass(frozen=True)
class Match:
    """What of a file a network takes.

    adapters: by the name of the tensor that each changes. modules: the file's names of the modules
    that fit. misfits: modules of the right name and the wrong shape, one sentence each.
    """

    adapters: Mapping[str, Adapter]
    modules: frozenset[str]
    misfits: tuple[str, ...]

    def changes(self, strength: float) -> Changes:
        return {name: ((adapter, strength),) for name, adapter in self.adapters.items()}


def match(lora: LoraFile, state: Mapping[str, Tensor], text_encoder: bool = False) -> Match:
    """A file against a network's weights, of which only names and shapes are looked at.

    text_encoder: whether the network is the prior's text tower, by transformers' names without
    `text_model.`; else it is Stage C or B.
    """
    state = stored(state)
    prefixes, others = DENOISER, TEXT_ENCODER
    if text_encoder:
        prefixes, others = others, prefixes
    modules = _by_alias(state)
    adapters: dict[str, Adapter] = {}
    fitting, misfits = set(), []
    for name in lora.modules:
        found = modules.get(_bare(name, prefixes, others))
        if found is None:
            continue
        for leaf, kind in (("weight", lora.weights), ("bias", lora.biases)):
            tensor = state.get(f"{found}.{leaf}")
            if name not in kind or tensor is None:
                continue
            if problem := _problem(kind[name], tensor):
                misfits.append(f"{found}.{leaf} {problem}")
            else:
                adapters[f"{found}.{leaf}"] = kind[name]
                fitting.add(name)
    return Match(adapters, frozenset(fitting), tuple(misfits))


def rest_of(lora: LoraFile, matches: Iterable[Match]) -> list[str]:
    """What of a file none of the networks takes."""
    taken = {name for one in matches for name in one.modules}
    return [*(name for name in lora.modules if name not in taken), *lora.unknown]


def nothing_fits(lora: LoraFile, matches: Iterable[Match], wanted: str) -> LoraError:
    """The error for a file of which nothing fits. wanted: what it was wired to, in words."""
    misfits = [sentence for one in matches for sentence in one.misfits]
    if misfits:
        return LoraError(f"{lora.path} was trained for a model of another size: {misfits[0]}.")
    if all(is_for_text(name) for name in lora.modules):
        return LoraError(
            f"{lora.path} changes only a text encoder; wire the prior's text encoder to "
            "`prior_text_encoder`."
        )
    model = trained_for(lora.modules, lora.about)
    named = f"is a LoRA for {model}" if model else "is a LoRA for an unknown model"
    some = ", ".join(lora.modules[:2])
    return LoraError(f"{lora.path} {named} ({some}, …), and nothing in it fits {wanted}.")


def trained_for(names: Sequence[str], about: Mapping[str, str] | None = None) -> str | None:
    """The other model that a LoRA was trained for, as its modules' names tell, else as the trainer
    wrote down; None where neither does."""
    for model, pattern in FOREIGN:
        if any(pattern.search(name) for name in names):
            return model
    about = about or {}
    return about.get("modelspec.architecture") or about.get("ss_base_model_version")


def for_another_model(path: Path) -> bool:
    """Whether the names in a file tell that its LoRA is for another model; no data is read."""
    return any(trained_for(names) for names in names_in(path))


def is_for_text(module: str) -> bool:
    """Whether the file's name of a module is one of a text encoder."""
    return module.startswith(TEXT_ENCODER)


def _by_alias(names: Iterable[str]) -> dict[str, str]:
    """Every way to spell a module -> the module: `to_out` for `to_out.0`, and `_` for dots."""
    spelled: dict[str, str] = {}
    for module in dict.fromkeys(name.rpartition(".")[0] for name in names):
        short = module.removesuffix(".0") if module.endswith(".to_out.0") else module
        for alias in (module, short):
            spelled[alias] = spelled[alias.replace(".", "_")] = module
    return spelled


def _bare(name: str, prefixes: Sequence[str], others: Sequence[str]) -> str:
    """A module's name without what trainers put before it; "" where it is of another part."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    if name.startswith(tuple(others)):
        return ""
    prefix = next((one for one in prefixes if name.startswith(one)), "")
    name = name.removeprefix(prefix)
    for tower in ("text_model.", "text_model_"):
        name = name.removeprefix(tower)
    # The old processors were modules beside the projections.
    return name.replace(".processor.", ".").replace("_processor_", "_")


def _problem(adapter: Adapter, tensor: Tensor) -> str:
    """Why an adapter does not fit a tensor, or "". Tried without memory."""
    try:
        adapter.delta(tensor.to("meta"))
    except (RuntimeError, ValueError, IndexError):
        return f"is {'×'.join(map(str, tensor.shape))} here, which it does not fit"
    return ""
