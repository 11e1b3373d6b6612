"""A disk that is really full: the data folder lies on a RAM disk of a few megabytes."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Prompt, graph
from .processes import GATE_PACK, Nursery, ServerProcess, wait_until

DISK = "8m"
# Runs a command that sees a RAM disk at $0, and nobody else does.
WITH_DISK = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT = f'mount -t tmpfs -o size={DISK} wuerstchen "$0" && exec "$@"'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the RAM disk needs namespaces")


class SmallDisk:
    """A data folder that is a disk of its own; only the server's processes see it at `folder`."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder = folder
        self.nursery = nursery
        self.seen = Path(f"/proc/{nursery.process.pid}/root{folder}")
        self._servers: list[ServerProcess] = []

    def start(self) -> ServerProcess:
        self._servers.append(ServerProcess(self.nursery, self.folder, "--custom-nodes"))
        self._servers[-1].address()
        return self._servers[-1]

    def fill(self, leave: int = 0) -> None:
        """Takes all space but `leave` bytes."""
        page = bytes(4096)
        with (self.seen / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(page)
            except OSError:
                file.truncate(file.tell() - leave)

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()

    def kill_servers(self) -> None:
        for server in self._servers:
            server.kill()


@pytest.fixture(scope="module")
def disk_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, Path]]:
    """Where servers come from that see the RAM disk, and its folder."""
    folder = tmp_path_factory.mktemp("disk") / "data"
    folder.mkdir()
    probe = [*WITH_DISK, MOUNT, str(folder), "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a RAM disk of his own")
    nursery = Nursery((*WITH_DISK, MOUNT, str(folder)))
    yield nursery, folder
    nursery.close()


@pytest.fixture
def disk(disk_nursery: tuple[Nursery, Path]) -> Iterator[SmallDisk]:
    nursery, folder = disk_nursery
    nursery.wait_until_ready()
    made = SmallDisk(folder, nursery)
    (made.seen / "custom_nodes").mkdir()
    (made.seen / "custom_nodes" / "gate.py").write_text(GATE_PACK)
    (made.seen / "input").mkdir()
    for name, side in (("small", 8), ("large", 1000)):
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(made.seen / "input" / f"{name}.png")
    yield made
    made.kill_servers()
    for path in made.seen.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def picture(name: str) -> Prompt:
    return graph(
        n1=("LoadImage", {"image": f"{name}.png"}),
        n2=("SaveImage", {"images": ["1", 0], "filename_prefix": name}),
    )


def gate(path: Path) -> Prompt:
    return graph(n1=("WaitForFile", {"path": str(path)}))


def submit(server: ServerProcess, prompt: Prompt) -> str:
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 200, answer
    return answer["prompt_id"]


def finished(server: ServerProcess, prompt_id: str) -> Any:
    """The history's entry of a prompt, once it is there."""
    return wait_until(
        lambda: server.get(f"/history/{prompt_id}").get(prompt_id), f"{prompt_id} does not end"
    )


def runs(server: ServerProcess, prompt_id: str) -> bool:
    return [entry[1] for entry in server.get("/queue")["queue_running"]] == [prompt_id]


def test_a_picture_that_does_not_fit_says_so_and_the_next_one_runs(disk: SmallDisk) -> None:
    server = disk.start()
    disk.fill(leave=1 << 20)
    large, small = submit(server, picture("large")), submit(server, picture("small"))
    failed = finished(server, large)
    assert failed["status"]["status_str"] == "error"
    [error] = [data for kind, data in failed["status"]["messages"] if kind == "execution_error"]
    assert error["node_id"] == "2"
    assert error["exception_message"] == "Cannot save 'large': No space left on device.\n"
    assert error["traceback"] == []
    assert finished(server, small)["status"]["status_str"] == "success"
    assert [path.name for path in (disk.seen / "output").glob("*.png")] == ["small_00001_.png"]
    assert list(disk.seen.rglob(".partial-*")) == []
    disk.make_room()
    again = finished(server, submit(server, picture("large")))
    assert again["outputs"]["2"]["images"][0]["filename"] == "large_00001_.png"
    with Image.open(disk.seen / "output" / "large_00001_.png") as saved:
        assert json.loads(saved.text["prompt"]) == picture("large")
        saved.load()


def test_a_latent_that_does_not_fit_says_so(disk: SmallDisk) -> None:
    server = disk.start()
    disk.fill(leave=1 << 20)
    empty = {"width": 4096, "height": 4096, "batch_size": 16}
    prompt = graph(
        n1=("WuerstchenEmptyLatent", empty),
        n2=("SaveLatent", {"samples": ["1", 0], "filename_prefix": "large"}),
    )
    failed = finished(server, submit(server, prompt))
    [error] = [data for kind, data in failed["status"]["messages"] if kind == "execution_error"]
    assert "No space left on device" in error["exception_message"]
    assert list((disk.seen / "output").glob("*large*")) == []


def test_a_prompt_that_cannot_be_kept_is_refused_in_words(disk: SmallDisk) -> None:
    server = disk.start()
    kept = finished(server, submit(server, picture("small")))
    disk.fill()
    status, answer = server.post("/prompt", {"prompt": picture("small")})
    assert status == 507
    assert answer["error"]["message"] == "The prompt could not be kept; is the disk full?"
    assert server.post("/history", {"clear": True})[0] == 507
    assert server.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert list(server.get("/history").values()) == [kept]
    disk.make_room()
    assert finished(server, submit(server, picture("small")))["status"]["completed"] is True


def test_a_finished_prompt_waits_for_room_in_the_history(disk: SmallDisk, tmp_path: Path) -> None:
    server = disk.start()
    first = submit(server, gate(tmp_path / "opened"))
    second = submit(server, picture("small"))
    wait_until(lambda: runs(server, first), "nothing runs")
    disk.fill()
    (tmp_path / "opened").touch()
    wait_until(lambda: "cannot be written" in server.output, "it does not say that it waits")
    assert runs(server, first)
    assert server.get("/history") == {}
    disk.make_room()
    assert finished(server, second)["status"]["completed"] is True
    assert list(server.get("/history")) == [first, second]


@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_a_server_that_ends_while_the_disk_is_full(
    disk: SmallDisk, tmp_path: Path, end: str
) -> None:
    server = disk.start()
    first = submit(server, gate(tmp_path / "opened"))
    second = submit(server, picture("small"))
    wait_until(lambda: runs(server, first), "nothing runs")
    disk.fill()
    (tmp_path / "opened").touch()
    wait_until(lambda: "cannot be written" in server.output, "it does not say that it waits")
    server.signal(signal.Signals[end])
    assert server.wait() == (-signal.SIGKILL if end == "SIGKILL" else 0)
    disk.make_room()
    after = disk.start()
    finished(after, second)
    assert list(after.get("/history")) == [first, second]


def test_a_start_on_a_full_disk_says_so(disk: SmallDisk) -> None:
    disk.fill()
    server = ServerProcess(disk.nursery, disk.folder)
    assert server.wait() == 2
    [sentence] = server.output.splitlines()
    assert "full" in sentence or "No space left" in sentence
    disk.make_room()
    disk.start()
