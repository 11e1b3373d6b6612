"""Where things of the repository lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
DEMO = ROOT / "models" / "wuerstchen-demo"
WORKFLOWS = ROOT / "example_workflows"
