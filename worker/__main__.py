"""Entry point: ``order-worker`` and ``python -m worker``."""

import sys

from worker.cli.main import run


def main() -> None:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 usage or configuration."""
    sys.exit(run())


if __name__ == "__main__":
    main()
