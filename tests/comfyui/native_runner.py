"""Runs inside ComfyUI's own Python: our parts behind ComfyUI's own nodes, measured.

`native_runner.py CHECKOUT BASE [CASE …]` takes BASE as ComfyUI's base directory, with the pack in
custom_nodes and folders `tiny` and `tiny-2` of random networks in models/wuerstchen, and leaves
BASE/answers.json: for each case its numbers, or {"error": …}.
"""

import json
import sys
import traceback
from pathlib import Path

import native_optimized
import native_parts
import native_sampling
import torch
from native_pack import Pack


def main() -> None:
    base = Path(sys.argv[2])
    wanted = sys.argv[3:]
    pack = Pack(Path(sys.argv[1]), base)
    answers = {}
    for case in (*native_parts.CASES, *native_sampling.CASES, *native_optimized.CASES):
        if wanted and case.__name__ not in wanted:
            continue
        try:
            with torch.inference_mode():
                answers[case.__name__] = case(pack)
        except BaseException:
            answers[case.__name__] = {"error": traceback.format_exc()}
    (base / "answers.json").write_text(json.dumps(answers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
