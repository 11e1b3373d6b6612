"""How far each stage is from diffusers', with the same random weights in float32 on the CPU.

    python benchmarks/parity.py           # small networks, seconds
    python benchmarks/parity.py --full    # the published sizes at 1024²: minutes, 9 GB of memory

Needs diffusers and transformers (`pip install -e ".[test]"`).
"""

import argparse
from dataclasses import replace

import torch
from measure import error_of
from published import ours_of, random_reference, sizes
from stages import DECODE, ENCODE, STAGE_B, STAGE_C, Request, cases

# Which network a case runs.
NETWORK = {STAGE_C: "stage_c", STAGE_B: "stage_b", DECODE: "stage_a", ENCODE: "stage_a"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the published sizes, at 1024²")
    full = parser.parse_args().full
    tiny, published = sizes("tiny"), sizes("published")
    for case in cases(Request(1024 if full else 128, 1)):
        network = NETWORK[case.what]
        # One large network at a time; the others are not run.
        config = replace(tiny, **{network: getattr(published, network)}) if full else tiny
        reference = random_reference(config, torch.float32, torch.device("cpu"))
        ours = ours_of(reference, config, torch.float32)
        with torch.no_grad():
            error = error_of(case.ours(ours)(), case.theirs(reference)())
        print(f"{case.what:<16} relative error {error:.1e}")


if __name__ == "__main__":
    main()
