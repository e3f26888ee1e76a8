"""The table of README.md, from the JSON of one session, so that no figure is ever typed.

    python -m tests.benchmarks.report [RESULT.json]

Without a file the newest one of the results folder is taken. Everything between the two comments is replaced.
"""

import sys
from pathlib import Path

import msgspec

from tests.benchmarks.figures import HEADS, table
from tests.benchmarks.record import LATENCY_HEADS, Record, folder

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- BEGIN results: python -m tests.benchmarks.report -->", "<!-- END results -->"


def rendered(record: Record) -> str:
    """Conditions, figures, growth, latencies and targets, as far as they were measured."""
    parts = [str(record.conditions) + "."]
    if record.medians:
        parts.append(table(HEADS, [each.cells for each in record.medians]))
    for axis in dict.fromkeys(row.axis for row in record.growth):
        rows = [(f"{row.step:,}", *row.median.cells) for row in record.growth if row.axis == axis]
        parts.append(table((axis, *HEADS), rows))
    if record.delays:
        parts.append(table(LATENCY_HEADS, [each.cells for each in record.delays]))
    if record.targets:
        rows_of_targets = [
            (each.what, each.bound, each.measured, "held" if each.held else "**missed**") for each in record.targets
        ]
        parts.append(table(("target", "bound", "measured", ""), rows_of_targets))
    return "\n\n".join(parts)


def replaced(text: str, record: Record) -> str:
    """``text`` with the results of this record in their place. Raises ValueError where there is none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for results between {BEGIN} and {END}")
    return f"{before}{begin}\n\n{rendered(record)}\n\n{end}{after}"


def newest(where: Path) -> Path:
    """The result that was written last. Raises FileNotFoundError."""
    found = sorted(where.glob("*.json"))
    if not found:
        raise FileNotFoundError(f"no results in {where}; `make bench` makes some")
    return found[-1]


def main(arguments: list[str]) -> None:
    """Rewrite README.md."""
    path = Path(arguments[0]) if arguments else newest(folder())
    record = msgspec.json.decode(path.read_bytes(), type=Record)
    README.write_text(replaced(README.read_text(), record))


if __name__ == "__main__":
    main(sys.argv[1:])
