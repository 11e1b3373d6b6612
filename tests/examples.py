"""The example workflows, by where they run: some use nodes that only ComfyUI has."""

from comfyui_wuerstchen.host.registry import default_nodes
from comfyui_wuerstchen.host.server.templates import runs

from .paths import DEMO, WORKFLOWS

EXAMPLES = sorted(WORKFLOWS.glob("*.json"))
HOSTED = [path for path in EXAMPLES if runs(path, default_nodes())]
# The others need weights that do not ship with the project.
ON_DEMO = [path for path in HOSTED if DEMO.name in path.read_text(encoding="utf-8")]
FOR_COMFYUI = [path for path in EXAMPLES if path not in HOSTED]
