"""The folder that serving loads: written whole or not at all, used unaltered or not.

==========================  =====================================================
``bundle.json``             recipe, signature, versions, metrics, hash of each file
``bundle.json.sha256``      hash of ``bundle.json``, as ``sha256sum -c`` reads it
``network.safetensors``     weights, without embedding tables if those are rounded
``tables.safetensors``      embedding tables, if they are rounded
``trunk.onnx``              what follows the bottom, if ONNX Runtime is to run it
``encoders/``               fitted features
``users.arrow``             user features and histories, if the recipe has any
``items.arrow``             item features, if the recipe has any
``encoded/``                both encoded, for requests to gather rows from
``manifest.json``           how the feature tables came about
``report.html``             the evaluation, if there was one
==========================  =====================================================

No file is a pickle: loading a bundle runs no code that it brings along.
"""

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import final

from safetensors import SafetensorError
from torch import Tensor

from recsys_mtl import __version__
from recsys_mtl.calibrate import Calibration
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.request_batch import SchemaSplit
from recsys_mtl.engine import AbstractEngine
from recsys_mtl.errors import ArtifactError, EnvironmentFault
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.export.encoded import (
    ENCODED_FOLDER,
    EncodedStore,
    encode_store,
    split_of,
)
from recsys_mtl.export.info import (
    FORMAT_VERSION,
    INFO,
    SEAL,
    BundleInfo,
    checked_info,
    seal_line,
)
from recsys_mtl.export.network_files import (
    NetworkFiles,
    empty_network,
    load_network_files,
    write_network,
)
from recsys_mtl.export.seal import seal_files
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.manifest import FeatureManifest, TaskStats, recipe_digest
from recsys_mtl.features.schema import FeatureSchema, RawColumn
from recsys_mtl.model.network import Network

__all__ = ["Bundle", "load_bundle", "write_bundle"]


@final
@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        folder: Where it lies.
        info: ``bundle.json``.
        digest: sha256 of ``bundle.json``, and so of everything.
        featurizer: Raw columns to encoded columns.
        store: User and item features and histories by key, mapped from disk.
        split: Which encoded columns the candidates of a request share.
        files: The network, its tables and its engine; weights are mapped from disk, so
            that processes share them.
        encoded: What is in ``store``, encoded and mapped; ``None`` in bundles written
            before there was such a thing.
    """

    folder: Path
    info: BundleInfo
    digest: str
    featurizer: Featurizer
    store: FeatureStore
    split: SchemaSplit
    files: NetworkFiles
    encoded: EncodedStore | None = None

    @property
    def engine(self) -> AbstractEngine:
        """Scores ``RequestBatch`` es: what serving calls."""
        return self.files.started.engine

    @property
    def heads(self) -> Network:
        """The network for all that needs no tables: predictions of logits, names."""
        return self.files.network

    @cached_property
    def network(self) -> Network:
        """The whole network, on the CPU in evaluation mode.

        Rounded tables become float32 at first use, in memory of this process.
        """
        self.files.fill_tables()
        return self.files.network

    @property
    def version(self) -> str:
        """Short name of exactly this bundle."""
        return self.digest[:12]

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return self.info.recipe

    @property
    def schema(self) -> FeatureSchema:
        """Encoded columns that the network reads."""
        return self.info.feature_schema

    @property
    def signature(self) -> tuple[RawColumn, ...]:
        """Raw columns that the features read."""
        return self.info.signature

    @property
    def stats(self) -> dict[str, TaskStats]:
        """Training labels of each task."""
        return self.info.task_stats

    @property
    def calibration(self) -> Calibration:
        """What is done to predictions."""
        return self.info.calibration


def write_bundle(
    folder: Path,
    *,
    recipe: Recipe,
    tables: Path,
    state: Mapping[str, Tensor],
    metrics: Mapping[str, Mapping[str, float]],
    report: Path | None = None,
    calibration: Calibration | None = None,
    on_rounding: Callable[[Rounding], None] = lambda _: None,
) -> Path:
    """Gather everything that serving needs under ``folder``.

    Arrow files of the feature tables are hard-linked where the disk allows it.

    Args:
        folder: Must not exist. Until all is written, the work lies beside it under a
            hidden name.
        recipe: What was trained.
        tables: Feature tables of the recipe.
        state: ``state_dict`` of its network.
        metrics: By task, on the test split.
        report: The HTML page.
        calibration: What is done to predictions; nothing if left out.
        on_rounding: Told what is rounded; may write ``report``, not read yet.

    Raises:
        ArtifactError: ``folder`` exists, the tables are incomplete or of another
            recipe, the weights do not fit, or ``recipe.export`` cannot be had.
        EnvironmentFault: The disk is full or not writable.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} exists; delete it or choose another folder")
    manifest = FeatureManifest.load(tables)
    if manifest.recipe_digest != (digest := recipe_digest(recipe)):
        raise ArtifactError(
            f"{tables} must be made from the data, features and tasks of recipe "
            f"{recipe.name!r} (digest {digest[:12]}), got {manifest.recipe_digest[:12]}"
            "; build the feature tables again"
        )
    stats = {task.name: manifest.tasks[task.name]["train"] for task in recipe.tasks}
    network = empty_network(recipe, manifest.feature_schema, stats)
    work = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        work.mkdir(parents=True)
        for source in _table_files(tables):
            _bring(source, work / source.relative_to(tables))
        split = _save_encoded(work)
        stored, engine = write_network(work, recipe, network, state, tables, split)
        on_rounding(stored)
        if report is not None:
            _bring(report, work / "report.html")
        info = BundleInfo(
            format_version=FORMAT_VERSION,
            name=recipe.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=recipe,
            recipe_digest=manifest.recipe_digest,
            feature_schema=manifest.feature_schema,
            signature=manifest.signature,
            task_stats=stats,
            versions=_versions(),
            files=seal_files(work),
            metrics={task: dict(of) for task, of in metrics.items()},
            calibration=calibration or Calibration(),
            tables=stored,
            engine=engine,
        )
        # No NaN: it would be no JSON, and metrics that are undefined are absent.
        text = json.dumps(info.model_dump(mode="json"), indent=1, allow_nan=False)
        (work / INFO).write_bytes(text.encode())
        digest = sha256(text.encode()).hexdigest()
        (work / SEAL).write_bytes(seal_line(digest))
        work.rename(folder)
    except (OSError, SafetensorError) as error:
        raise EnvironmentFault(
            f"{folder} could not be written: {error}; free the disk or choose another "
            "folder"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def load_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Load a bundle, if it is exactly what was written.

    Args:
        folder: As ``write_bundle`` made it; a link to the folder will do.
        verify: Also hash every file. Without, names and sizes must still be right: for
            many processes that load what one of them has verified.

    Raises:
        ArtifactError: There is no complete bundle, a file is missing, extra or altered,
            the format is another, or the weights do not fit the recipe.
    """
    folder = Path(os.path.realpath(folder))
    info, digest = checked_info(folder, verify=verify)
    featurizer = Featurizer.load(folder / "encoders")
    store = _store(folder, featurizer)
    split, encoded = split_of(featurizer, store), None
    if (folder / ENCODED_FOLDER).is_dir():
        encoded = EncodedStore.load(folder / ENCODED_FOLDER, split)
    return Bundle(
        folder=folder,
        info=info,
        digest=digest,
        featurizer=featurizer,
        store=store,
        split=split,
        files=load_network_files(
            folder,
            empty_network(info.recipe, info.feature_schema, info.task_stats),
            split,
            info.tables,
            info.engine,
        ),
        encoded=encoded,
    )


def _store(folder: Path, featurizer: Featurizer) -> FeatureStore:
    tables = [folder / name for name in ("users.arrow", "items.arrow")]
    users, items = (EntityTable.load(p) if p.exists() else None for p in tables)
    return FeatureStore(featurizer.contract, users, items)


def _save_encoded(folder: Path) -> SchemaSplit:
    """Encode the users and items that lie in ``folder``, once for all requests."""
    featurizer = Featurizer.load(folder / "encoders")
    encoded = encode_store(featurizer, _store(folder, featurizer))
    (folder / ENCODED_FOLDER).mkdir()
    encoded.save(folder / ENCODED_FOLDER)
    return encoded.split


def _table_files(tables: Path) -> list[Path]:
    names = ("manifest.json", "users.arrow", "items.arrow")
    files = [tables / name for name in names if (tables / name).exists()]
    return files + [p for p in sorted((tables / "encoders").rglob("*")) if p.is_file()]


def _bring(source: Path, target: Path) -> None:
    """Link large files, which nothing ever writes again, and copy the others.

    A report may be written anew in place: linked, that would alter the bundle.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # a linked link would be a link
    if source.suffix == ".arrow":
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchrec", "safetensors")}
    return {
        "recsys_mtl": __version__,
        "python": platform.python_version(),
        **packages,
    }
