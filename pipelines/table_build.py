"""Feature tables pass by pass; ``pipelines.features`` says when."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, final

import pyarrow as pa

from pipelines.block import Dealt, aggregate_items
from pipelines.encode import EncodeReport, EncodeTask, encode_bucket, fit_bucket
from pipelines.job import run_tasks
from pipelines.partition import PartitionReport, PartitionTask, partition
from pipelines.spill import ROW, TIME, together
from recsys_mtl.config.data import TimeSplit
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.source import EntitySource, SimulatedEntities, SimulatorSource
from recsys_mtl.data.fragment import AbstractFragment, BadLines, ParquetFragment
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.data.source import open_source, source_schema
from recsys_mtl.data.split import SPLITS
from recsys_mtl.errors import DataError
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.entity_build import build_entities, with_events
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.manifest import (
    FeatureManifest,
    InputCounts,
    SplitFiles,
    recipe_digest,
)
from recsys_mtl.features.signature import RawPlan, plan_raw
from recsys_mtl.progress import OnProgress, Progress

__all__ = ["TableBuild"]

_BUCKET_ROWS = 200_000
_TASK_ROWS = 1_000_000
_SMALL_BUCKET_ROWS = 5_000
_LEAST_BUCKETS = 8
_BYTES_A_LINE = 80
_GZIP = 6

_Entity = Literal["user", "item"]
_ENTITIES: tuple[_Entity, ...] = ("user", "item")


@final
class TableBuild:
    """One build of a feature-table folder. Needs a running Ray.

    Args:
        recipe: What to build.
        digest: Identifies recipe and input.
        folder: Empty folder to fill; scratch files go beside it.
        on_progress: Told of rows done.
        num_buckets: Tasks to which users are dealt out; by the number of rows if left
            out. The tables do not depend on it but for the order of rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        digest: str,
        folder: Path,
        on_progress: OnProgress,
        num_buckets: int | None = None,
    ) -> None:
        self._recipe = recipe
        self._digest = digest
        self._folder = folder
        self._on_progress = on_progress
        self._num_buckets = num_buckets
        self._scratch = folder.parent / "scratch"
        self._scratch.mkdir()
        self._bad_lines = BadLines()
        self._entity_tables: dict[_Entity, EntityTable] = {}

    def run(self) -> FeatureManifest:
        """Do all passes.

        Raises:
            DataError: The rows are wrong, or a split has none.
        """
        plan = self._plan()
        contract = RawContract.of(self._recipe, plan.signature)
        self._read_entities(contract, "user", plan.users)
        self._read_entities(contract, "item", plan.items)
        dealt, report = self._deal(contract, plan)
        newest_items: list[Path] = []
        if dealt.by_item:
            dealt, newest_items = self._aggregate(dealt, report.rows)
        self._fit(dealt, report.rows)
        encoded = self._encode(dealt, report.rows)
        self._check_splits(encoded, report)
        self._save_entities("user", encoded.users)
        self._save_entities("item", newest_items)
        return self._save_manifest(contract, report, encoded)

    def _plan(self) -> RawPlan:
        data = self._recipe.data
        return plan_raw(
            self._recipe,
            source_schema(data.interactions),
            self._entity_schema(data.users, "user"),
            self._entity_schema(data.items, "item"),
        )

    def _entity_schema(
        self, entity: EntitySource | None, of: _Entity
    ) -> pa.Schema | None:
        if entity is None:
            return None
        if isinstance(entity.source, SimulatedEntities):
            return next(self._simulated(of)).schema
        return source_schema(entity.source)

    def _simulated(self, of: _Entity) -> Iterator[pa.Table]:
        spec = self._recipe.data.interactions
        assert isinstance(spec, SimulatorSource)
        simulator = Simulator(spec)
        if of == "item":
            yield simulator.items()
        else:
            yield from map(simulator.users_chunk, range(simulator.num_chunks))

    def _read_entities(
        self, contract: RawContract, of: _Entity, columns: tuple[str, ...]
    ) -> None:
        """Build the entity table, without events."""
        data = self._recipe.data
        entity = data.users if of == "user" else data.items
        if entity is None:
            return
        self._tell(f"{of}s", 0, None)
        if isinstance(entity.source, SimulatedEntities):
            tables = [table.select(columns) for table in self._simulated(of)]
        else:
            fragments = open_source(entity.source, columns)
            tables = [t for f in fragments for t in f.read(self._bad_lines)]
        if not tables:
            raise DataError(f"data.{of}s has no rows; check that the export worked")
        table = together(tables)
        key = entity.key or getattr(contract.keys, of)
        built = build_entities(contract, of, table, key=key)
        self._entity_tables[of] = built
        built.save(self._entity_path(of))
        self._tell(f"{of}s", table.num_rows, table.num_rows)

    def _entity_path(self, of: _Entity) -> Path:
        return self._scratch / f"{of}s.arrow"

    def _deal(
        self, contract: RawContract, plan: RawPlan
    ) -> tuple[Dealt, PartitionReport]:
        """Read the log once and deal its rows out to buckets."""
        data = self._recipe.data
        fragments = open_source(data.interactions, plan.interactions)
        estimate = sum(map(_estimated_rows, fragments))
        known = all(fragment.size is not None for fragment in fragments)
        num_buckets = self._num_buckets or _num_buckets(estimate)
        tasks = [
            PartitionTask(
                data=data,
                contract=contract,
                fragments=tuple(fragments[start:stop]),
                place=start,
                folder=self._scratch,
                num_buckets=num_buckets,
                item_columns=_item_columns(contract, plan),
            )
            for start, stop in _groups(fragments)
        ]
        report = PartitionReport()
        for result in run_tasks(partition, tasks):
            report.merge(result)
            self._tell("read", report.rows, estimate if known else None)
        self._bad_lines.merge(report.bad_lines)
        if not report.by_user:
            raise self._no_rows("train", report)
        cuts = None
        if isinstance(data.split, TimeSplit):
            cuts = report.sample.cuts(data.split)
        users, items = (
            self._entity_path(of) if of in self._entity_tables else None
            for of in _ENTITIES
        )
        dealt = Dealt(
            recipe=self._recipe,
            contract=contract,
            num_buckets=num_buckets,
            by_user=tuple(report.by_user),
            by_item=tuple(report.by_item),
            aggregates=(),
            users=users,
            items=items,
            cuts=cuts,
            origins=tuple(_origins(fragments)),
        )
        return dealt, report

    def _aggregate(self, dealt: Dealt, rows: int) -> tuple[Dealt, list[Path]]:
        """Aggregates by item need all rows of an item in one place."""
        files, newest = [], []
        work = partial(aggregate_items, dealt, self._scratch)
        for aggregates, items in run_tasks(work, range(dealt.num_buckets)):
            files.append(aggregates)
            newest.append(items)
            self._tell_share("aggregate", len(files), dealt.num_buckets, rows)
        return replace(dealt, aggregates=tuple(files)), newest

    def _fit(self, dealt: Dealt, rows: int) -> None:
        fit = FeaturizerFit(self._recipe, dealt.contract.signature)
        results = run_tasks(partial(fit_bucket, dealt), range(dealt.num_buckets))
        for done, part in enumerate(results, 1):
            fit.merge(part)
            self._tell_share("fit", done, dealt.num_buckets, rows)
        fit.finish().save(self._folder / "encoders")

    def _encode(self, dealt: Dealt, rows: int) -> EncodeReport:
        tasks = [
            EncodeTask(dealt, bucket, self._folder, self._scratch)
            for bucket in range(dealt.num_buckets)
        ]
        report = EncodeReport()
        for result in run_tasks(encode_bucket, tasks):
            report.merge(result)
            self._tell("encode", sum(report.rows.values()), rows)
        return report

    def _check_splits(self, encoded: EncodeReport, report: PartitionReport) -> None:
        for split in SPLITS:
            if not encoded.rows.get(split):
                raise self._no_rows(split, report)

    def _no_rows(self, split: str, report: PartitionReport) -> DataError:
        dropped = {**report.dropped, "bad lines": self._bad_lines.count}
        lost = ", ".join(f"{reason}: {n:,}" for reason, n in dropped.items() if n)
        return DataError(
            f"split {split!r} has no rows: {report.rows:,} rows were read"
            f"{f' ({lost})' if lost else ''}, and data.split of kind "
            f"{self._recipe.data.split.kind!r} puts none there; correct data.split or "
            "the input"
        )

    def _save_entities(self, of: _Entity, newest: Sequence[Path]) -> None:
        pieces = []
        for path in newest:
            with pa.memory_map(str(path)) as file:
                pieces.append(pa.ipc.open_file(file).read_all())
        table = with_events(self._entity_tables.get(of), pieces)
        if table is not None:
            table.save(self._folder / f"{of}s.arrow")

    def _save_manifest(
        self, contract: RawContract, report: PartitionReport, encoded: EncodeReport
    ) -> FeatureManifest:
        featurizer = Featurizer.load(self._folder / "encoders")
        manifest = FeatureManifest(
            recipe=self._recipe.model_dump(mode="json"),
            recipe_digest=recipe_digest(self._recipe),
            build_digest=self._digest,
            feature_schema=featurizer.schema,
            signature=contract.signature,
            splits={
                split: SplitFiles(
                    rows=sum(encoded.parts[split].values()),
                    parts=tuple(encoded.parts[split]),
                    part_rows=tuple(encoded.parts[split].values()),
                )
                for split in SPLITS
            },
            tasks={
                task.name: {
                    split: encoded.labels[task.name][split].stats(
                        task, training=split == "train"
                    )
                    for split in SPLITS
                }
                for task in self._recipe.tasks
            },
            counts={split: encoded.counts[split].as_dict() for split in SPLITS},
            dropped=dict(report.dropped),
            input=InputCounts(
                rows=report.rows,
                untimed=report.untimed,
                duplicates=encoded.duplicates,
                bad_lines=self._bad_lines.count,
                first_bad_lines=tuple(self._bad_lines.first),
                duplicate_entities={
                    f"{of}s": t.duplicates for of, t in self._entity_tables.items()
                },
                keyless_entities={
                    f"{of}s": t.keyless for of, t in self._entity_tables.items()
                },
            ),
        )
        manifest.save(self._folder)
        return manifest

    def _tell(self, what: str, done: int, total: int | None) -> None:
        self._on_progress(Progress(f"features: {what}", done, total))

    def _tell_share(self, what: str, done: int, of: int, rows: int) -> None:
        self._tell(what, rows * done // of, rows)


def _item_columns(contract: RawContract, plan: RawPlan) -> tuple[str, ...]:
    """What aggregates by item read of the log; empty if there are none."""
    aggregates = [a for a in contract.aggregates if a.by == "item"]
    if not aggregates:
        return ()
    assert contract.timestamp is not None
    wanted = {contract.keys.user, contract.keys.item, contract.timestamp.column}
    for aggregate in aggregates:
        wanted.add(aggregate.rate_of.column)
        if aggregate.where is not None:
            wanted.add(aggregate.where.column)
    return (*(c for c in plan.interactions if c in wanted), ROW, TIME)


def _num_buckets(rows: int) -> int:
    """Enough that a bucket fits into memory, and that there is work for all cores."""
    least = min(_LEAST_BUCKETS, -(-rows // _SMALL_BUCKET_ROWS))
    return max(least, -(-rows // _BUCKET_ROWS), 1)


def _groups(fragments: Sequence[AbstractFragment]) -> Iterator[tuple[int, int]]:
    """Ranges of neighbouring fragments that make up a task each."""
    rows = [_estimated_rows(fragment) for fragment in fragments]
    most = min(_TASK_ROWS, max(sum(rows) // _LEAST_BUCKETS, 1))
    start, held = 0, 0
    for place, count in enumerate(rows):
        if place > start and held + count > most:
            yield start, place
            start, held = place, 0
        held += count
    yield start, len(rows)


def _estimated_rows(fragment: AbstractFragment) -> int:
    if fragment.size is not None:
        return fragment.size
    size = Path(fragment.path).stat().st_size
    return size * (_GZIP if fragment.path.endswith(".gz") else 1) // _BYTES_A_LINE


def _origins(fragments: Sequence[AbstractFragment]) -> Iterator[tuple[str, int]]:
    """File of each fragment, and number of its first row in that file."""
    first: dict[str, int] = {}
    for fragment in fragments:
        yield fragment.path, first.get(fragment.path, 0)
        if isinstance(fragment, ParquetFragment):
            first[fragment.path] = first.get(fragment.path, 0) + fragment.num_rows
