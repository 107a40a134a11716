"""The one file of a backup: any tar program reads it, and nothing but a backup is read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from photochanger import tarball
from photochanger.failures import InvalidRequest
from photochanger.tarball import DUMP, MANIFEST, Manifest, Writer

PICTURE = "media/results/one.jpg"


def manifest(files: dict[str, str]) -> Manifest:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    return Manifest(version="1", migration="0006", postgresql=18, made_at=at, counts={}, files=files, left_out=[])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound backup of a dump and a picture."""
    made = tmp_path / "made.tar"
    with made.open("wb") as file:
        writer = Writer(file, lambda: None)
        writer.add(DUMP, [b"PGDMP", b"x" * 1000])
        writer.add(PICTURE, [b"picture" * 300])
        writer.finish(manifest(writer.files))
    return made


def verify(path: Path) -> Manifest:
    with path.open("rb") as file:
        return tarball.verified(file)


def test_a_backup_is_read_back_and_by_any_tar_program(path: Path) -> None:
    assert verify(path).keys == ["results/one.jpg"]
    with tarfile.open(path) as other:
        assert other.getnames() == [DUMP, PICTURE, MANIFEST]
        inside = other.extractfile(PICTURE)
        assert inside is not None
        assert inside.read() == b"picture" * 300


def test_a_file_that_cannot_be_read_to_its_end_leaves_no_trace(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 2000
        raise TimeoutError

    made = tmp_path / "made.tar"
    with made.open("wb") as file:
        writer = Writer(file, lambda: None)
        writer.add(DUMP, [b"PGDMP"])
        with pytest.raises(TimeoutError):
            writer.add(PICTURE, broken())
        writer.finish(manifest(writer.files))
    assert verify(made).keys == []


@pytest.mark.parametrize("keep", [0, 100, 700, 2000, -3000, -1300])
def test_one_that_was_cut_off_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidRequest, match=r"cut off|damaged"):
        verify(path)


def test_every_byte_that_counts_is_checked(path: Path) -> None:
    sound = path.read_bytes()
    for place in (0, 130, 600, sound.index(b"picture"), sound.index(b'"format"')):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(InvalidRequest):
            verify(path)


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        entry("media/results/../../../etc/passwd"),
        entry("/etc/passwd"),
        entry("media/results/.hidden"),
        entry("media/payloads/one.jpg"),
        entry("media/results/sub/one.jpg"),
        entry("media/results", kind=tarfile.DIRTYPE),
        entry(PICTURE, kind=tarfile.SYMTYPE, link="/etc/passwd"),
        entry(PICTURE, kind=tarfile.LNKTYPE, link=DUMP),
        entry(PICTURE, kind=tarfile.FIFOTYPE),
        entry(PICTURE, kind=tarfile.GNUTYPE_SPARSE),
        entry("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=2**60),
        entry("pax", kind=tarfile.XHDTYPE, size=2**60),
        entry(PICTURE, size=2**60),
        entry(PICTURE, size=-512),
        entry(MANIFEST, size=2**40),
    ],
    ids=lambda one: f"{one.name}-{one.type.decode()}-{one.size}",
)
def test_nothing_but_plain_files_with_our_names_and_honest_sizes_is_taken(path: Path, hostile: tarfile.TarInfo) -> None:
    head = hostile.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(head + path.read_bytes())
    with pytest.raises(InvalidRequest):
        verify(path)


def test_a_file_that_comes_twice_or_is_in_no_manifest_is_refused(path: Path) -> None:
    sound = path.read_bytes()
    begin = sound.index(PICTURE.encode())
    picture = sound[begin : begin + 512 + 2560]
    path.write_bytes(sound[:begin] + picture + sound[begin:])
    with pytest.raises(InvalidRequest, match="where no backup has it"):
        verify(path)
    path.write_bytes(sound[:begin] + sound[begin + len(picture) :])
    with pytest.raises(InvalidRequest, match=f"{PICTURE} is not what the manifest says"):
        verify(path)
