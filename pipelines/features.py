"""Raw rows -> feature tables, on Ray Data, in memory that does not grow with the rows.

Rows are read once and dealt out so that one task sees all rows of a user
(``partition``); encoders are fitted on training rows (``encode.fit_bucket``); then all
rows are encoded (``encode.encode_bucket``).
"""

import json
import logging
from hashlib import sha256
from pathlib import Path

from pipelines.folder import whole
from pipelines.ray_session import ray_session
from pipelines.table_build import TableBuild
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.source import (
    ArrowSource,
    CsvSource,
    ParquetSource,
    SimulatedEntities,
    SimulatorSource,
)
from recsys_mtl.data.source import source_files
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.manifest import FeatureManifest, recipe_digest
from recsys_mtl.progress import OnProgress, Progress, silent

__all__ = ["build_feature_tables", "tables_digest"]

_LOG = logging.getLogger(__name__)

_FORMAT = 1


def build_feature_tables(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    num_cpus: int | None = None,
    verbose: bool = False,
    on_progress: OnProgress = silent,
) -> FeatureManifest:
    """Make the feature-table folder of a recipe, or reuse one of the same input.

    Args:
        recipe: Its data, features and tasks are what counts.
        output: Folder to make.
        overwrite: Whether to replace the tables of another recipe.
        num_cpus: Cores to use; all if left out.
        verbose: Whether Ray may write to the console.
        on_progress: Told of rows done.

    Raises:
        DataError: The rows are wrong, or a split has none.
        ArtifactError: ``output`` holds something else.
    """
    digest = tables_digest(recipe)
    found = _existing(output, digest, overwrite)
    if found is not None:
        rows = sum(split.rows for split in found.splits.values())
        _LOG.info("%s is up to date and used as it is", output)
        on_progress(Progress("features", rows, rows, "up to date, reused"))
        return found
    with whole(output) as folder, ray_session(num_cpus, verbose):
        folder.mkdir()
        manifest = TableBuild(recipe, digest, folder, on_progress).run()
    return manifest


def tables_digest(recipe: Recipe) -> str:
    """Identify all that feature tables depend on: the recipe's part, and the input.

    Files count by name, size and time of change.

    Raises:
        DataError: A file is missing.
    """
    files = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for source in _file_sources(recipe)
        for file in source_files(source)
    ]
    text = json.dumps([_FORMAT, recipe_digest(recipe), files])
    return sha256(text.encode()).hexdigest()


def _file_sources(recipe: Recipe) -> list[ParquetSource | ArrowSource | CsvSource]:
    data = recipe.data
    sources = [data.interactions, *(e.source for e in (data.users, data.items) if e)]
    return [
        source
        for source in sources
        if not isinstance(source, SimulatorSource | SimulatedEntities)
    ]


def _existing(output: Path, digest: str, overwrite: bool) -> FeatureManifest | None:
    """The tables that lie at ``output`` already, if they can be used."""
    if not output.exists():
        return None
    if not (output / "manifest.json").is_file():
        if output.is_dir() and not any(output.iterdir()):
            return None
        raise ArtifactError(
            f"{output} exists and holds no feature tables; choose another output"
        )
    if overwrite:
        return None
    found = FeatureManifest.load(output)
    if found.build_digest != digest:
        raise ArtifactError(
            f"{output} holds feature tables of another recipe or other input; choose "
            "another output, or replace them with --overwrite"
        )
    return found
