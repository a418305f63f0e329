"""What a bundle says of itself in ``bundle.json``, and whether it is so."""

import json
from hashlib import sha256
from os.path import realpath
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from recsys_mtl import __version__
from recsys_mtl.calibrate import Calibration
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import ArtifactError
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.export.program import EngineInfo
from recsys_mtl.export.seal import FileSeal, check_files
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import Artifact, FeatureSchema, RawColumn

__all__ = [
    "FORMAT_VERSION",
    "INFO",
    "SEAL",
    "BundleInfo",
    "bundle_digest",
    "check_bundle",
    "checked_info",
    "seal_line",
]

FORMAT_VERSION: Final = 1
INFO: Final = "bundle.json"
SEAL: Final = "bundle.json.sha256"


class BundleInfo(Artifact):
    """``bundle.json``.

    Attributes:
        format_version: Of the folder's layout; another one is refused.
        name: The recipe's.
        created: When it was written, ISO 8601 in UTC.
        recipe: What was trained.
        recipe_digest: Of what shapes the features; see ``features.manifest``.
        feature_schema: Encoded columns that the network reads.
        signature: Raw columns that the features read.
        task_stats: Training labels of each task.
        versions: Of what wrote it.
        files: Every other file by its path; only ``bundle.json.sha256`` is not listed.
        metrics: By task, on the test split.
        calibration: What is done to predictions.
        tables: How embedding tables are stored and products made.
        engine: What runs the network.
    """

    format_version: Literal[1]
    name: str
    created: str
    recipe: Recipe
    recipe_digest: str
    feature_schema: FeatureSchema
    signature: tuple[RawColumn, ...]
    task_stats: dict[str, TaskStats]
    versions: dict[str, str]
    files: dict[str, FileSeal]
    metrics: dict[str, dict[str, float]]
    calibration: Calibration = Calibration()
    tables: Rounding = Rounding(bytes=0, float32_bytes=0)
    engine: EngineInfo = EngineInfo()


def bundle_digest(folder: Path) -> str:
    """Tell which bundle a folder has, without loading it.

    Raises:
        ArtifactError: There is none, or ``bundle.json`` is altered.
    """
    return _read_info(Path(realpath(folder)))[1]


def check_bundle(folder: Path, *, verify: bool = True) -> None:
    """Refuse what ``load_bundle`` would refuse before it loads anything.

    Args:
        folder: As ``write_bundle`` made it; a link to the folder will do.
        verify: As of ``load_bundle``.

    Raises:
        ArtifactError: There is no complete bundle, or a file is missing, extra or
            altered.
    """
    checked_info(Path(realpath(folder)), verify=verify)


def checked_info(folder: Path, *, verify: bool) -> tuple[BundleInfo, str]:
    """Read ``bundle.json`` and its sha256, if the folder is exactly what was written.

    Args:
        folder: A real folder, no link.
        verify: As of ``load_bundle``.

    Raises:
        ArtifactError: As of ``check_bundle``.
    """
    info, digest = _read_info(folder)
    besides = frozenset({INFO, SEAL})
    check_files(folder, info.files, besides=besides, hash=verify)
    return info, digest


def seal_line(digest: str) -> bytes:
    """Write the hash of ``bundle.json``, as ``sha256sum -c`` reads it."""
    return f"{digest}  {INFO}\n".encode()


def _read_info(folder: Path) -> tuple[BundleInfo, str]:
    path = folder / INFO
    try:
        content, seal = path.read_bytes(), (folder / SEAL).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{folder} must be a complete bundle, but {error.filename} cannot be read "
            f"({error.strerror}); build it again or correct the path"
        ) from error
    digest = sha256(content).hexdigest()
    if seal != seal_line(digest):
        raise ArtifactError(
            f"{path} must have the sha256 that {SEAL} says "
            f"({seal[:64].decode(errors='replace')}), got {digest}; copy or build the "
            "bundle again"
        )
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ArtifactError(f"{path} is no JSON: {error}; build it again") from error
    got = found.get("format_version") if isinstance(found, dict) else None
    if got != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} must have format version {FORMAT_VERSION}, got {got!r}; load it "
            "with the version of recsys-mtl that wrote it, or build it again"
        )
    try:
        return BundleInfo.model_validate(found), digest
    except ValidationError as error:
        raise ArtifactError(
            f"{path} does not fit this version of recsys-mtl, {__version__}: {error}; "
            "load it with the version that wrote it, or build it again"
        ) from error
