"""What this server tells clients it can do."""

from __future__ import annotations

from typing import Any

MAX_UPLOAD_BYTES = 100 << 20

FEATURES: dict[str, Any] = {
    "supports_preview_metadata": True,
    "max_upload_size": MAX_UPLOAD_BYTES,
}
