"""Files are written whole, read as they are, and refused by name; in a folder and on S3."""

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import boto3
import polars as pl
import pytest

from include.errors import BadData
from include.lake import files
from include.lake.files import exists, list_folder, open_parquet, read_text
from include.lake.tables import Lake
from tests.unit.helpers import replace


def test_a_text_is_written_and_replaced_whole(root: str) -> None:
    path = Lake(root).root / "folder" / "note.txt"
    for text in ("first", "zweite Ausgabe: größer"):
        files.put_text(path, text)
        assert files.read_text(path) == text
    assert [found.name for found in files.list_folder(path.parent)] == ["note.txt"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "size is 0 bytes"),
        (b"PAR1", "smaller than"),
        (b"a,b\n1,2\n" * 10, "magic bytes not found"),
        (b"PAR1" + b"\xff" * 100 + b"\x40\x00\x00\x00PAR1", "thrift"),
    ],
)
def test_a_file_that_is_not_parquet_is_bad_data_with_path_and_reason(
    content: bytes, reason: str, root: str
) -> None:
    path = Lake(root).root / "landing" / "flights" / "2013-03-01.parquet"
    with files.atomic_file(path) as scratch:
        scratch.write_bytes(content)
    with pytest.raises(BadData) as failure:
        files.open_parquet(path)
    assert str(path) in str(failure.value)
    assert reason in str(failure.value)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,
    "a character device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_not_a_regular_file_is_refused_at_once_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is at most a hundred bytes long
    NO_FILES[kind](Path("x.parquet"))
    path = tmp_path / "x.parquet"
    for read in (files.open_parquet, files.read_text):
        with pytest.raises(BadData, match=f"{path} is {kind}, not a file"):
            read(path)


def test_a_link_to_a_file_is_read_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("content")
    (tmp_path / "link").symlink_to("text")
    assert files.read_text(tmp_path / "link") == "content"


def test_a_file_of_another_lake_is_not_changed_by_replacing_it(tmp_path: Path) -> None:
    """The tests copy lakes by hard links: this is why they may."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    files.put_text(first, "old")
    second.hardlink_to(first)
    files.put_text(first, "new")
    replace(second, b"other")
    assert (first.read_text(), second.read_text()) == ("new", "other")


def test_other_writers_versions_are_seen_at_once(s3_root: str, s3_server: dict[str, str]) -> None:
    """S3's clients like to remember what they have listed."""
    lake, others = Lake(s3_root), boto3.client("s3")
    folder = lake.root / "folder"

    def write(name: str, content: bytes) -> None:
        key = f"{s3_root.rsplit('/', 1)[1]}/folder/{name}"
        others.put_object(Bucket="bucket", Key=key, Body=content)

    def parquet(rows: int) -> bytes:
        content = io.BytesIO()
        pl.DataFrame({"x": range(rows)}).write_parquet(content)
        return content.getvalue()

    def listed() -> list[str]:
        return [path.name for path in list_folder(folder)]

    write("note.txt", b"one")
    write("rows.parquet", parquet(1))
    assert listed() == ["note.txt", "rows.parquet"]
    write("note.txt", b"two, and longer")
    write("rows.parquet", parquet(1000))
    write("then.txt", b"new")
    assert exists(folder / "then.txt")
    assert read_text(folder / "note.txt") == "two, and longer"
    with open_parquet(folder / "rows.parquet") as file:
        assert len(file.read()) == 1000
    assert listed() == ["note.txt", "rows.parquet", "then.txt"]
