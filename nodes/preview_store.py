"""What finished pictures have taught about previews, in one file."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from torch import Tensor

from ..wuerstchen_core.errors import UnreadableCheckpointError
from ..wuerstchen_core.preview import Fit, LinearMap, read_fits, write_fits

logger = logging.getLogger(__name__)


class PreviewStore:
    """The `runtime.PreviewMaps` that last, for use from any thread.

    A broken file is forgotten; one that cannot be written only means learning anew next time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._fits = self._read()
        self._unwritable = False

    def lookup(self, key: str) -> LinearMap | None:
        with self._lock:
            fit = self._fits.get(key)
        return fit.solve() if fit else None

    def learn(self, key: str, latents: Tensor, pixels: Tensor) -> None:
        channels = latents.shape[1]
        with self._lock:
            known = self._fits.get(key)
            fit = known if known and known.channels == channels else Fit.empty(channels)
            self._fits[key] = fit.after(latents, pixels)
            self._write()

    def _read(self) -> dict[str, Fit]:
        if not self._path.exists():
            return {}
        try:
            return read_fits(self._path)
        except UnreadableCheckpointError as error:
            logger.warning("previews are learned anew: %s", error)
            return {}

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_fits(self._path, self._fits)
            self._unwritable = False
        except OSError as error:
            if not self._unwritable:
                logger.warning("%s cannot be written: %s", self._path.name, error.strerror)
            self._unwritable = True
