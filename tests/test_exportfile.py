"""Files of letters: whole or not there, never over another one, and only for their owner."""

import stat
from pathlib import Path

import pytest

from worker.core.errors import UsageError
from worker.exportfile import DiscardFile, ExportFile


def everything(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Under its name there is nothing before."""
    path = tmp_path / "letters"
    with ExportFile(path) as file:
        file.write(b"one\n")
        assert not path.exists()

    assert everything(tmp_path) == {"letters": b"one\n"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_that_broke_leaves_nothing(tmp_path: Path) -> None:
    """Not even its temporary file."""

    def breaking() -> None:
        with ExportFile(tmp_path / "letters") as file:
            file.write(b"one\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaking()

    assert everything(tmp_path) == {}


def test_an_export_replaces_only_by_force(tmp_path: Path) -> None:
    """Also what appeared while it was written."""
    path = tmp_path / "letters"

    def overtaken() -> None:
        with ExportFile(path) as file:
            file.write(b"new\n")
            path.write_bytes(b"old\n")

    with pytest.raises(UsageError, match="--force"):
        overtaken()
    with pytest.raises(UsageError, match="is there already"), ExportFile(path):
        pytest.fail("entered")
    assert everything(tmp_path) == {"letters": b"old\n"}
    with ExportFile(path, force=True) as file:
        file.write(b"new\n")

    assert everything(tmp_path) == {"letters": b"new\n"}


def test_discarded_letters_are_in_their_file_at_once(tmp_path: Path) -> None:
    """It is never replaced, and stays when something breaks."""
    path = tmp_path / "letters"

    def breaking() -> None:
        with DiscardFile(path) as file:
            file.write(b"one\n")
            file.sync()
            assert path.read_bytes() == b"one\n"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaking()
    with pytest.raises(UsageError, match="another name"), DiscardFile(path):
        pytest.fail("entered")

    assert everything(tmp_path) == {"letters": b"one\n"}


def test_a_file_of_nothing_is_none(tmp_path: Path) -> None:
    """Nothing matched."""
    with DiscardFile(tmp_path / "letters"):
        pass

    assert everything(tmp_path) == {}


@pytest.mark.parametrize("kind", [ExportFile, DiscardFile])
def test_a_file_that_cannot_be_made_is_a_matter_for_the_person(
    kind: type[ExportFile | DiscardFile], tmp_path: Path
) -> None:
    """The text names it."""
    with pytest.raises(UsageError, match=r"letters cannot be written: No such file"), kind(tmp_path / "no" / "letters"):
        pytest.fail("entered")


@pytest.mark.parametrize("kind", [ExportFile, DiscardFile])
def test_writing_needs_an_open_file(kind: type[ExportFile | DiscardFile], tmp_path: Path) -> None:
    """Before and after the block it is not."""
    with pytest.raises(RuntimeError, match="not open"):
        kind(tmp_path / "letters").write(b"x")
