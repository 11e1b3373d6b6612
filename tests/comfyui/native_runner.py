"""Runs inside ComfyUI's own Python: our parts behind ComfyUI's own nodes, measured.

`native_runner.py CHECKOUT BASE [CASE …]` takes BASE as ComfyUI's base directory, with the pack in
custom_nodes and folders `tiny` and `tiny-2` of random networks in models/wuerstchen, and leaves
BASE/answers.json: for each case its numbers, or {"error": …}. Those of `native_lora.py`,
`native_files.py` and `native_v1.py` run only when they are named.
"""

import json
import sys
import traceback
from pathlib import Path

import native_files
import native_lora
import native_optimized
import native_parts
import native_prompts
import native_sampling
import native_v1
import torch
from native_pack import Pack


def main() -> None:
    base = Path(sys.argv[2])
    wanted = sys.argv[3:]
    pack = Pack(Path(sys.argv[1]), base)
    answers = {}
    every = (native_parts, native_prompts, native_sampling, native_optimized)
    usual = [case for module in every for case in module.CASES]
    others = (*native_lora.CASES, *native_files.CASES, *native_v1.CASES)
    named = [case for case in (*usual, *others) if case.__name__ in wanted]
    for case in named or usual:
        try:
            with torch.inference_mode():
                answers[case.__name__] = case(pack)
        except BaseException:
            answers[case.__name__] = {"error": traceback.format_exc()}
    (base / "answers.json").write_text(json.dumps(answers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
