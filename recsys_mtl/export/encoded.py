"""Encoded users and items beside the tables they were made from, mapped when loaded.

Files are safetensors: arrays by name, without code and without compression.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file

from recsys_mtl.config.feature import (
    AggregateFeature,
    HistoryFeature,
    TimePartFeature,
)
from recsys_mtl.data.request_batch import SchemaSplit
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.shared_column import shared_columns
from recsys_mtl.features.snapshot import EncodedEntities, encode_entities

__all__ = ["ENCODED_FOLDER", "EncodedStore", "encode_store", "row_features", "split_of"]

ENCODED_FOLDER: Final = "encoded"
_USERS, _ITEMS = "users.safetensors", "items.safetensors"
_FORMAT: Final = "1"


@final
@dataclass(frozen=True)
class EncodedStore:
    """What requests gather rows from.

    Attributes:
        split: Encoded columns that candidates share, and those that each has.
        users: The shared columns of every user.
        items: The own columns of every item.
    """

    split: SchemaSplit
    users: EncodedEntities
    items: EncodedEntities

    def save(self, folder: Path) -> None:
        """Write two files into ``folder``, which must exist."""
        for name, entities in ((_USERS, self.users), (_ITEMS, self.items)):
            arrays, about = entities.arrays()
            save_file(arrays, folder / name, {"format": _FORMAT} | about)

    @classmethod
    def load(cls, folder: Path, split: SchemaSplit) -> "EncodedStore":
        """Map what ``save`` wrote.

        Raises:
            ArtifactError: A file is missing, damaged, of another format, or of other
                columns than ``split`` has.
        """
        store = cls(split, _load(folder / _USERS), _load(folder / _ITEMS))
        for name, entities, columns in (
            (_USERS, store.users, split.shared),
            (_ITEMS, store.items, split.own),
        ):
            strange = {
                *entities.id_columns,
                *entities.dense_columns,
                *entities.lists,
            } - set(columns)
            strange |= {
                name
                for name in entities.events
                if not any(column.startswith(f"{name}.") for column in columns)
            }
            if strange:
                raise ArtifactError(
                    f"{folder / name} has columns that belong elsewhere "
                    f"({', '.join(sorted(strange))}); build the bundle again"
                )
        return store


def split_of(featurizer: Featurizer, store: FeatureStore) -> SchemaSplit:
    """Tell which encoded columns all candidates of a request share."""
    columns = () if store.items is None else store.items.columns
    shared = shared_columns(featurizer.schema, featurizer.contract, columns)
    return SchemaSplit.by_columns(featurizer.schema, shared)


def row_features(featurizer: Featurizer, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Features behind ``columns`` that cells of one row decide, without the time."""
    by_events = AggregateFeature | HistoryFeature | TimePartFeature
    return tuple(
        feature.name
        for feature in featurizer.contract.features
        if not isinstance(feature, by_events) and feature.name in columns
    )


def encode_store(featurizer: Featurizer, store: FeatureStore) -> EncodedStore:
    """Encode all users and items."""
    split = split_of(featurizer, store)
    users = row_features(featurizer, split.shared)
    items = row_features(featurizer, split.own)
    return EncodedStore(
        split,
        encode_entities(featurizer, store.users, "user", users),
        encode_entities(featurizer, store.items, "item", items),
    )


def _load(path: Path) -> EncodedEntities:
    try:
        with safe_open(path, "numpy") as file:
            about = dict(file.metadata() or {})
        # Through torch, which maps the file; NumPy's own reader copies it.
        arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}; build the bundle again"
        ) from error
    if (got := about.pop("format", None)) != _FORMAT:
        raise ArtifactError(
            f"{path} must have format {_FORMAT}, got {got!r}; build the bundle again"
        )
    return EncodedEntities.of_arrays(arrays, about)
