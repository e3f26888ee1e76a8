"""``python -m tests.simulation.run SEEDS [FROM]``: any number of seeds, and the rate. ``--trace`` prints one whole."""

import argparse
import sys
import time

from tests.simulation.simulation import simulate

EVERY_S = 10.0


def failure(seed: int, violations: list[str], lines: list[str]) -> str:
    """What a person needs to see of a seed that failed."""
    story = "\n".join(lines)
    return (
        f"seed {seed} broke {len(violations)} promises:\n  "
        + "\n  ".join(violations)
        + f"\n\n{story}\n\nagain: make simulate SEEDS=1 FROM={seed}\n"
    )


def main() -> int:
    """Run the seeds; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first one")
    parser.add_argument("--trace", action="store_true", help="print every trace")
    parser.add_argument("--most", type=int, default=3, help="stop after so many failures")
    options = parser.parse_args()
    began = told = time.monotonic()
    failed = 0
    for done, seed in enumerate(range(options.first, options.first + options.seeds), start=1):
        trace = simulate(seed)
        if trace.violations:
            failed += 1
            _say(failure(seed, trace.violations, trace.lines()))
        elif options.trace:
            _say("\n".join(trace.lines()))
        now = time.monotonic()
        if now - told > EVERY_S or done == options.seeds or failed == options.most:
            told = now
            _say(f"{done} seeds, {failed} failed, {done / (now - began):.1f} seeds/s")
        if failed == options.most:
            break
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
