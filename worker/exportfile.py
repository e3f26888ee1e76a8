"""Files that dead letters are written to, for their owner's eyes only: bodies may hold personal data.

An export appears under its name when it is whole. A file of discarded letters is there from the beginning, because what
is in it may be nowhere else any more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from worker.core.errors import UsageError

OWNER_ONLY = 0o600


class _Lines:
    """A file that lines are added to, made when it is entered. Implements ``deadletters.LetterSink``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def write(self, line: bytes) -> None:
        """Add a line. Raises UsageError where the disk does not take it."""
        with self._telling():
            self._open.write(line)

    def sync(self) -> None:
        """Returns when all lines are on the disk. Raises as ``write``."""
        with self._telling():
            self._open.flush()
            os.fsync(self._open.fileno())

    @property
    def _open(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("the file is not open")
        return self._file

    def _make(self, path: Path) -> None:
        with self._telling():
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise UsageError(f"{self._path} is there already: give another name") from None
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}") from None

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with self._telling():
                file.close()


class ExportFile(_Lines):
    """Written to a temporary file beside it, and renamed when the block ends without an error.

    Raises UsageError where the file is there already (unless ``force``) or cannot be written.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        super().__init__(path)
        self._force = force
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        self._refuse_to_overwrite()
        self._make(self._temporary)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.sync()
                self._refuse_to_overwrite()
                self._temporary.replace(self._path)
                _sync_folder(self._path)
        finally:
            self._close()
            with suppress(FileNotFoundError):
                self._temporary.unlink()

    def _refuse_to_overwrite(self) -> None:
        if not self._force and self._path.exists():
            raise UsageError(f"{self._path} is there already: give another name, or --force to replace it")


class DiscardFile(_Lines):
    """Always a new file. One that stayed empty is removed in the end. Raises as ``ExportFile``."""

    def __enter__(self) -> Self:
        self._make(self._path)
        _sync_folder(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            if self._path.stat().st_size == 0:
                self._path.unlink()


def _sync_folder(path: Path) -> None:
    """A new name is on the disk when its folder is."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
