"""The speed and memory switches of a loaded stage. What is exact is no switch: it is always on."""

from dataclasses import dataclass

import torch

from .compile import compiled
from .errors import SettingError
from .offload import offload
from .quantise import quantiser
from .residency import Network, place

COMPILE = ("off", "blocks", "cuda_graphs")
STORAGE = ("as_loaded", "int8", "float8")
RESIDENCY = ("resident", "one_stage", "streamed")


@dataclass(frozen=True)
class Optimization:
    """How a stage is to run. The defaults change nothing.

    compile: "blocks" compiles each kind of block once with torch.compile; "cuda_graphs" also
        records a step once a shape and replays it.
    storage: what the linears' weights are kept in.
    residency: where weights lie: always on the device, there while the stage runs, or brought
        layer by layer.
    step_cache: how much a step's input may differ from the last computed one's, relative, for that
        one's result to be used again; 0 computes every step.
    guidance_end: the share of the steps, from the first, that guidance takes part in.

    Raises SettingError for values out of range and for switches that exclude each other.
    """

    compile: str = "off"
    storage: str = "as_loaded"
    residency: str = "resident"
    step_cache: float = 0.0
    guidance_end: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("compile", COMPILE), ("storage", STORAGE), ("residency", RESIDENCY)):
            if getattr(self, name) not in known:
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}."
                )
        for name in ("step_cache", "guidance_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}; 0 to 1 is expected.")
        if self.compile != "off" and self.residency == "streamed":
            raise SettingError(
                "compiled blocks need their weights at hand; choose residency resident or "
                "one_stage, or turn compile off."
            )
        if self.compile == "cuda_graphs" and self.residency != "resident":
            raise SettingError(
                "CUDA graphs hold the addresses of the weights; choose residency resident, or "
                "compile blocks."
            )


# What a loader does unless told otherwise: nothing.
PLAIN = Optimization()


def placed(
    network: Network, device: torch.device, dtype: torch.dtype, optimization: Optimization
) -> Network:
    """A network as it was read -> one that computes on `device`, as the switches tell.

    The given one is not to be used any more. What is not to stay on the device does not pass
    through it here either. Raises SettingError for a storage whose library is missing.
    """
    resident = optimization.residency == "resident"
    rests_on = device if resident else torch.device("cpu")
    place(network, rests_on, dtype, then=quantiser(network, optimization.storage))
    if optimization.compile != "off":
        network = compiled(network, cuda_graphs=optimization.compile == "cuda_graphs")
    if not resident:
        offload(network, device, streamed=optimization.residency == "streamed")
    return network
