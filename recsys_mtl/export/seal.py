"""Which files a folder has, and that not one byte of them differs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.schema import Artifact

__all__ = ["FileSeal", "check_files", "seal_files", "sha256_of"]


class FileSeal(Artifact):
    """What a file must be.

    Attributes:
        sha256: Of its bytes, in hexadecimal.
        bytes: How many there are.
    """

    sha256: str
    bytes: int


def sha256_of(path: Path) -> str:
    """Hash a file of any size in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_files(folder: Path) -> dict[str, FileSeal]:
    """Seal every file under ``folder``, named by its path with forward slashes.

    Raises:
        ArtifactError: There is something that is neither file nor folder.
    """
    return {
        name: FileSeal(sha256=sha256_of(path), bytes=path.stat().st_size)
        for name, path in _files(folder).items()
    }


def check_files(
    folder: Path, seals: Mapping[str, FileSeal], *, besides: frozenset[str], hash: bool
) -> None:
    """Refuse a folder whose files are not exactly the sealed ones.

    Args:
        folder: A real folder, no link.
        seals: By path below ``folder``.
        besides: Files that may be there without a seal.
        hash: Read and compare every byte, not only names and sizes.

    Raises:
        ArtifactError: A file is missing, extra, altered, a link, or would lie outside
            the folder.
    """
    for name in seals:
        if not _is_plain(name):
            raise ArtifactError(
                f"{folder}: file name {name!r} in the list of files must be a relative "
                "path below the folder; do not use this bundle"
            )
    there = _files(folder)
    missing = sorted(seals.keys() - there.keys())
    if missing:
        raise ArtifactError(
            f"{folder} must hold {missing[0]!r}, which is missing"
            f"{_more(missing)}; copy or build the bundle again"
        )
    extra = sorted(there.keys() - seals.keys() - besides)
    if extra:
        raise ArtifactError(
            f"{folder} must hold nothing but its own files, got {extra[0]!r}"
            f"{_more(extra)}; remove what does not belong"
        )
    for name, seal in seals.items():
        size = there[name].stat().st_size
        if size != seal.bytes:
            raise ArtifactError(
                f"{there[name]} must have {seal.bytes} bytes, got {size}; copy or "
                "build the bundle again"
            )
        if hash and (got := sha256_of(there[name])) != seal.sha256:
            raise ArtifactError(
                f"{there[name]} must have sha256 {seal.sha256}, got {got}; copy or "
                "build the bundle again"
            )


def _files(folder: Path) -> dict[str, Path]:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(
                f"{path} must be a file or a folder, got a link or a special file; "
                "replace it by what it points to"
            )
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path
    return files


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return plain and path.as_posix() == name and name != "."


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
