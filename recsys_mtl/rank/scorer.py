"""The network of a bundle with what surrounds it: encoded rows in, one score out."""

from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from recsys_mtl.config.score import ScoreSpec
from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.export.bundle import Bundle
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.join import Assembled
from recsys_mtl.model.chains import Logits
from recsys_mtl.rank.fusion import fuse
from recsys_mtl.rank.scored import Details, Scored

__all__ = ["Predicted", "Scorer"]


class Predicted(NamedTuple):
    """Predictions as the network made them, calibrated, and what is beside them."""

    network_BT: Float[np.ndarray, "batch tasks"]
    calibrated_BT: Float[np.ndarray, "batch tasks"]
    details: Details


@final
class Scorer:
    """Encodes raw rows, asks the network, calibrates and fuses.

    Args:
        bundle: As ``load_bundle`` gives it.
        spec: How predictions become one score.
    """

    def __init__(self, bundle: Bundle, spec: ScoreSpec) -> None:
        self._bundle = bundle
        self._spec = spec
        self.tasks = tuple(task.name for task in bundle.recipe.tasks)
        self._detail_names = dict(
            zip(self.tasks, bundle.heads.detail_names, strict=True)
        )

    def encode(self, raw: pa.Table) -> tuple[Assembled, pa.Table]:
        """Join and encode raw rows; see ``FeatureStore.assemble``."""
        assembled = self._bundle.store.assemble(raw)
        encoded = self._bundle.featurizer.encode(
            assembled.raw, assembled.histories, canonical=True
        )
        return assembled, encoded

    def of_rows(self, encoded: pa.Table, *, details: bool) -> Predicted:
        """Predict whole rows."""
        return self.of_requests(
            RequestBatch.of_rows(self._bundle.split, encoded), details=details
        )

    def of_requests(self, batch: RequestBatch, *, details: bool) -> Predicted:
        """Predict candidates that share what their request has once."""
        logits = self._bundle.engine.score(batch) if batch.num_rows else None
        return self._predicted(logits, details=details)

    def fuse(
        self,
        predicted: Predicted,
        known_user_B: Bool[np.ndarray, " batch"],
        known_item_B: Bool[np.ndarray, " batch"],
    ) -> Scored:
        """Add the score."""
        return Scored(
            predicted.calibrated_BT,
            fuse(self._spec, predicted.calibrated_BT, self.tasks),
            known_user_B,
            known_item_B,
            predicted.details,
            predicted.network_BT,
        )

    def known(
        self, assembled: Assembled
    ) -> tuple[Bool[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]:
        """Whether the bundle knows each row's user, and its item."""
        keys, store, rows = (
            self._bundle.recipe.data.keys,
            self._bundle.store,
            assembled.raw,
        )
        return (
            self._known(store.users, keys.user, rows, assembled.known_user_B),
            self._known(store.items, keys.item, rows, assembled.known_item_B),
        )

    def _known(
        self,
        table: EntityTable | None,
        key: str | None,
        rows: pa.Table,
        stored_B: Bool[np.ndarray, " batch"],
    ) -> Bool[np.ndarray, " batch"]:
        """Where there is no table to know a key, the vocabulary of its feature does."""
        if table is not None or key is None:
            return stored_B
        known_B = self._bundle.featurizer.known(key, rows.column(key))
        return stored_B if known_B is None else known_B

    def _predicted(self, logits: Logits | None, *, details: bool) -> Predicted:
        network = self._bundle.heads
        network_BT = np.empty((0, len(self.tasks)), dtype=np.float32)
        if logits is not None:
            network_BT = network.predict(logits).numpy()
        told: Details = {}
        if details and logits is not None:
            made = zip(self.tasks, network.details(logits), strict=True)
            told = {
                task: {name: detail_B.numpy() for name, detail_B in of.items()}
                for task, of in made
                if of
            }
        elif details:
            told = {
                task: dict.fromkeys(names, network_BT[:, 0])
                for task, names in self._detail_names.items()
                if names
            }
        calibrated_BT = self._bundle.calibration.apply(network_BT, self.tasks)
        return Predicted(network_BT, calibrated_BT, told)
