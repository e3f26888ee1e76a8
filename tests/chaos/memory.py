"""The memory of a process over its life: first, last, peak, and the slope of a straight line through all of it."""

import os
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1_000_000
WARM_UP_S = 20.0
"""Imports, first connections and the first full prefetch are no leak."""
SLOPE_FROM_S = 120.0
"""A line through less than this says nothing."""


def resident_bytes(pid: int | None = None) -> int:
    """What a process (None: this one) holds now; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Memory:
    """Samples of one process, folded: it takes no more room however long it lives. Bytes, and seconds of its age."""

    first: int = 0
    last: int = 0
    peak: int = 0
    age_s: float = 0.0
    _count: int = 0
    _sum_t: float = 0.0
    _sum_r: float = 0.0
    _sum_tt: float = 0.0
    _sum_tr: float = 0.0

    def note(self, age_s: float, resident: int) -> None:
        """A sample. Those of the first ``WARM_UP_S`` only count for the peak."""
        if not resident:
            return
        self.age_s, self.last, self.peak = age_s, resident, max(self.peak, resident)
        if age_s < WARM_UP_S:
            return
        self.first = self.first or resident
        self._count += 1
        self._sum_t += age_s
        self._sum_r += resident
        self._sum_tt += age_s * age_s
        self._sum_tr += age_s * resident

    @property
    def slope(self) -> float | None:
        """Bytes per second, None where the life was too short to tell."""
        spread = self._count * self._sum_tt - self._sum_t**2
        if self.age_s < SLOPE_FROM_S or spread <= 0:
            return None
        return (self._count * self._sum_tr - self._sum_t * self._sum_r) / spread

    def __str__(self) -> str:
        told = f"{self.first / MEGABYTE:.0f} / {self.last / MEGABYTE:.0f} / {self.peak / MEGABYTE:.0f} MB"
        slope = "too short for a slope" if self.slope is None else f"{self.slope * 3600 / MEGABYTE:+.1f} MB/h"
        return f"first / last / peak {told} in {self.age_s:.0f} s, {slope}"
