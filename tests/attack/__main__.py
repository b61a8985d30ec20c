"""Attack for as long as you like: `python -m tests.attack --seed 1 --tries 500 --only manifest tar`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .attack import Attack, Failure, attack
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="another seed is another attack [0]")
    parser.add_argument("--tries", type=int, default=20, help="of each target [20]")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(TARGETS), default=[], metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--number", type=int, help="only this try, to see it again")
    parser.add_argument("--folder", type=Path, help="to work in and to leave there; by default one that is removed")
    chosen = parser.parse_args()

    def tell(failure: Failure) -> None:
        print(f"{failure.target}, try {failure.number}: {failure.command}: {failure.what}\n    ", end="")
        print(failure.detail.replace("\n", "\n    "), flush=True)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch) / "attack"
        if chosen.number is not None:
            folder.mkdir(parents=True)
            world = Attack(folder, chosen.only or TARGETS)
            failures = [each for name in chosen.only or TARGETS for each in world.one(name, chosen.seed, chosen.number)]
            for failure in failures:
                tell(failure)
        else:
            failures = attack(folder, chosen.seed, chosen.tries, chosen.only, tell)
    tries = (1 if chosen.number is not None else chosen.tries) * len(chosen.only or TARGETS)
    print(f"{tries} files damaged, {len(failures)} failures, {time.monotonic() - began:.0f} s (seed {chosen.seed})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
