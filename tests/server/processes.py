"""Real servers as child processes, started in milliseconds and killed at will."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0

# A pack for `--custom-nodes`: an output that ends once a file is there.
GATE_PACK = """
import time
from pathlib import Path


class WaitForFile:
    RETURN_TYPES = ()
    FUNCTION = "wait"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING", {})}}

    def wait(self, path):
        while not Path(path).exists():
            time.sleep(0.005)
        return {}


NODE_CLASS_MAPPINGS = {"WaitForFile": WaitForFile}
"""
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Nursery:
    """The process that the servers are forked from."""

    def __init__(self, prefix: tuple[str, ...] = ()) -> None:
        """`prefix` is a command that runs this one, like `unshare`."""
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **what: Any) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait_until_ready(self) -> None:
        self.ask()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class ServerProcess:
    """`wuerstchen serve` over a data folder; `output` is what it prints."""

    def __init__(self, nursery: Nursery, data: Path, *options: str) -> None:
        self._nursery = nursery
        self._out = data.with_name(f"{data.name}.out")
        self._out.write_text("")
        port = [] if "--port" in options else ["--port", "0"]
        argv = ["serve", "--data", str(data), *port, *options]
        self.pid = nursery.ask(argv=argv, out=str(self._out))
        self._exit_code: int | None = None

    @property
    def output(self) -> str:
        return self._out.read_text()

    def address(self) -> str:
        """Waits until it serves."""
        return wait_until(lambda: self._find_address(), f"no address in {self._out}")

    def _find_address(self) -> str | None:
        found = ADDRESS.search(self.output)
        if found is None and not self._lives():
            raise AssertionError(f"the server ended: {self.output}")
        return found[0] if found else None

    def _lives(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; negative when a signal ended it."""
        if self._exit_code is None:
            wait_until(lambda: not self._lives(), f"process {self.pid} does not end")
            self._exit_code = self._nursery.ask(wait=self.pid)
        return self._exit_code

    def kill(self) -> None:
        if self._exit_code is None:
            self.signal(signal.SIGKILL)
            self.wait()

    def resident_bytes(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) << 10

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address()}{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON); raises OSError when the server is not there."""
        request = urllib.request.Request(
            f"{self.address()}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextmanager
def server_process(nursery: Nursery, data: Path, *options: str) -> Iterator:
    server = ServerProcess(nursery, data, *options)
    try:
        yield server
    finally:
        server.kill()


def wait_until(condition: Any, failure: str) -> Any:
    """The first true value of `condition()`, which tells of another process's state."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, failure
        time.sleep(0.005)
    return found
