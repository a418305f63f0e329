"""Candidates of some requests become vectors; what they share is looked up once."""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.model.embeddings.batch_embedding import BatchEmbedding, Embedded
from recsys_mtl.model.embeddings.context import ContextEmbedding
from recsys_mtl.model.embeddings.history import EventSequence, HistoryEmbedding
from recsys_mtl.model.embeddings.pooling import repeat_events
from recsys_mtl.model.embeddings.table_rows import AbstractTableRows
from recsys_mtl.model.embeddings.table_stack import (
    SideColumns,
    TableStack,
    lengths_of,
    stacks_of,
)

__all__ = ["RequestEmbedded", "RequestEmbedding"]


class RequestEmbedded(NamedTuple):
    """What the rest of the network reads; see ``Embedded`` for the parts.

    Attributes:
        shared_RFD: Fields that candidates share.
        own_NFD: Fields of each candidate.
        shared_RM: Numbers that candidates share.
        own_NM: Numbers of each candidate.
        request_N: Request of each candidate.
        sequences: Histories that the bottom pools: events once a request, or of each
            candidate where they differ; queries of each candidate.
        sequence_rows: For each of them, the list of events that each candidate reads.
        contexts: For each candidate.
    """

    shared_RFD: Float[Tensor, "requests shared_fields dim"]
    own_NFD: Float[Tensor, "rows own_fields dim"]
    shared_RM: Float[Tensor, "requests shared_dense"]
    own_NM: Float[Tensor, "rows own_dense"]
    request_N: Int[Tensor, " rows"]
    sequences: tuple[EventSequence, ...]
    sequence_rows: tuple[Int[Tensor, " rows"], ...]
    contexts: tuple[Float[Tensor, "rows _ _"], ...]


@final
class RequestEmbedding:
    """Looks a ``RequestBatch`` up in the tables of a ``BatchEmbedding``.

    Not through TorchRec's collections, which take about a millisecond a call however
    few rows there are: all columns of one width are a single lookup. For scoring on
    the CPU alone, in evaluation mode.

    Args:
        embedding: Not sharded. Its poolings are used as they are; its tables are not
            read if ``rows`` are given.
        split: Which columns are shared.
        rows: For each of ``stacks_of(embedding)`` its rows.

    Attributes:
        field_places: Where the fields of ``shared_RFD``, then of ``own_NFD``, lie in
            ``Embedded.fields_BFD``.
        dense_places: The same of numbers.
    """

    def __init__(
        self,
        embedding: BatchEmbedding,
        split: SchemaSplit,
        rows: Sequence[AbstractTableRows],
    ) -> None:
        self._embedding = embedding
        self._rows = rows
        stacks = stacks_of(embedding)
        self._stack, *context_stacks = stacks
        lists = frozenset(field.name for field in split.schema.ids if field.multi)
        plain = (*embedding.pooled_columns, *embedding.candidates)
        shared = frozenset(split.shared)
        # Each with whether its events are there once a request.
        self._histories = [
            (history, history.columns[0] in shared)
            for history in embedding.histories.children()
            if isinstance(history, HistoryEmbedding)
        ]
        self._shared = SideColumns(
            self._stack, [c for c in plain if c in shared], lists
        )
        self._own = SideColumns(
            self._stack, [c for c in plain if c not in shared], lists
        )
        dense = split.schema.dense
        sides = (split.shared_dense, split.own_dense)
        shared_M, own_M = ([dense.index(name) for name in side] for side in sides)
        places = shared_M, own_M
        numbers = embedding.numbers
        # Cut out once: weights do not change.
        self._numbers = (
            None
            if numbers is None
            else [numbers.weight_MD.detach()[side] for side in places]
        )
        self.field_places = self._field_places(plain, places)
        self.dense_places = places if embedding.numbers is None else ([], [])
        contexts = list(embedding.contexts.children())
        self._contexts = [
            _RequestContext(context, stack, split, lists)
            for context, stack in zip(contexts, context_stacks, strict=True)
            if isinstance(context, ContextEmbedding)
        ]

    def __call__(self, batch: RequestBatch) -> RequestEmbedded:
        request_N = torch.from_numpy(batch.request_N)
        shared_RFD, own_NFD, *events = self._look_up(batch)
        dense_RM, dense_NM = _floats(batch.shared.dense_NM), _floats(batch.own.dense_NM)
        contexts = tuple(
            context(batch, rows, dense_RM, dense_NM, request_N)
            for context, rows in zip(self._contexts, self._rows[1:], strict=True)
        )
        shared_blocks, own_blocks = [shared_RFD], [own_NFD]
        sequences, sequence_rows = [], []
        for (history, is_shared), events_EKD in zip(
            self._histories, events, strict=True
        ):
            if is_shared and batch.num_requests == 1 and _averages(history):
                shared_blocks.append(_mean_of_all(events_EKD))
                continue
            side = batch.shared if is_shared else batch.own
            length_S = lengths_of(side, history.columns[0])
            if history.pooling is not None and not history.pooling.reads_candidate:
                nothing = events_EKD.new_empty(len(length_S), 0, self._stack.dim)
                sequence = EventSequence(events_EKD, length_S, nothing)
                (shared_blocks if is_shared else own_blocks).append(history(sequence))
                continue
            query_NQD = self._queries(history, shared_RFD, own_NFD, request_N)
            sequence = EventSequence(events_EKD, length_S, query_NQD)
            row_N = request_N if is_shared else torch.arange(len(request_N))
            if history.pooling is None:
                sequences.append(sequence)
                sequence_rows.append(row_N)
            else:
                own_blocks.append(history.pooling.pool_requests(*sequence, row_N))
        if self._numbers is not None:
            shared_MD, own_MD = self._numbers
            shared_blocks.append(dense_RM[:, :, None] * shared_MD)
            own_blocks.append(dense_NM[:, :, None] * own_MD)
            dense_RM, dense_NM = dense_RM[:, :0], dense_NM[:, :0]
        return RequestEmbedded(
            _side_by_side(shared_blocks),
            _side_by_side(own_blocks),
            dense_RM,
            dense_NM,
            request_N,
            tuple(sequences),
            tuple(sequence_rows),
            contexts,
        )

    def joined(self, embedded: RequestEmbedded) -> Embedded:
        """Repeat for every candidate what is shared: what ``BatchEmbedding`` gives."""
        request_N = embedded.request_N
        parts = []
        for shared, own, places in (
            (embedded.shared_RFD, embedded.own_NFD, self.field_places),
            (embedded.shared_RM, embedded.own_NM, self.dense_places),
        ):
            order = np.argsort(np.array([*places[0], *places[1]], dtype=np.int64))
            both = torch.cat([shared.index_select(0, request_N), own], dim=1)
            parts.append(both.index_select(1, torch.from_numpy(order)))
        sequences = []
        for (events_EKD, length_S, query_NQD), row_N in zip(
            embedded.sequences, embedded.sequence_rows, strict=True
        ):
            place_X, length_N = repeat_events(length_S, row_N)
            repeated = events_EKD.index_select(0, place_X)
            sequences.append(EventSequence(repeated, length_N, query_NQD))
        fields_NFD, dense_NM = parts
        nothing = fields_NFD.new_zeros(())
        return Embedded(
            fields_NFD, dense_NM, tuple(sequences), embedded.contexts, nothing
        )

    def _field_places(
        self, plain: tuple[str, ...], dense: tuple[list[int], list[int]]
    ) -> tuple[list[int], list[int]]:
        shared = [plain.index(column) for column in self._shared.columns]
        own = [plain.index(column) for column in self._own.columns]
        end = len(plain)
        for history, is_shared in self._histories:
            if history.pooling is not None:
                once = is_shared and not history.pooling.reads_candidate
                side = shared if once else own
                side += range(end, end + len(history.columns))
                end += len(history.columns)
        if self._embedding.numbers is not None:
            shared += [end + place for place in dense[0]]
            own += [end + place for place in dense[1]]
        return shared, own

    def _look_up(self, batch: RequestBatch) -> list[Tensor]:
        """Look both sides up, and the events of each history: all in one go."""
        shared, own = self._shared.places(batch.shared), self._own.places(batch.own)
        found = self._rows[0].gather_each(
            [
                *shared,
                *own,
                *(
                    self._stack.event_places(
                        batch.shared if is_shared else batch.own, history.columns
                    )
                    for history, is_shared in self._histories
                ),
            ]
        )
        end_of_shared, end_of_own = len(shared), len(shared) + len(own)
        return [
            self._shared.vectors(batch.shared, found[:end_of_shared]),
            self._own.vectors(batch.own, found[end_of_shared:end_of_own]),
            *found[end_of_own:],
        ]

    def _queries(
        self,
        history: HistoryEmbedding,
        shared_RFD: Tensor,
        own_NFD: Tensor,
        request_N: Tensor,
    ) -> Float[Tensor, "rows matched dim"]:
        """Give the candidates' own vectors of a history's fields, found already."""
        matched = []
        for column in history.matched:
            if column in self._own.columns:
                matched.append(own_NFD[:, self._own.columns.index(column)])
            else:
                vector_RD = shared_RFD[:, self._shared.columns.index(column)]
                matched.append(vector_RD.index_select(0, request_N))
        if not matched:
            return own_NFD.new_empty(len(request_N), 0, self._stack.dim)
        return torch.stack(matched, dim=1)


@final
class _RequestContext:
    """Columns of one ``ContextEmbedding``, on both sides."""

    def __init__(
        self,
        context: ContextEmbedding,
        stack: TableStack,
        split: SchemaSplit,
        lists: frozenset[str],
    ) -> None:
        self._numbers = context.numbers
        columns = (*context.pooled_columns, *context.candidates)
        shared = frozenset(split.shared)
        self._shared = SideColumns(stack, [c for c in columns if c in shared], lists)
        self._own = SideColumns(stack, [c for c in columns if c not in shared], lists)
        both = (*self._shared.columns, *self._own.columns)
        self._order = torch.tensor([both.index(c) for c in columns], dtype=torch.int64)
        names = [split.schema.dense[place] for place in context.places]
        dense = (*split.shared_dense, *split.own_dense)
        self._places = torch.tensor([dense.index(n) for n in names], dtype=torch.int64)

    def __call__(
        self,
        batch: RequestBatch,
        rows: AbstractTableRows,
        dense_RM: Tensor,
        dense_NM: Tensor,
        request_N: Tensor,
    ) -> Float[Tensor, "rows columns dim"]:
        shared, own = self._shared.places(batch.shared), self._own.places(batch.own)
        found = rows.gather_each([*shared, *own])
        shared_RFD = self._shared.vectors(batch.shared, found[: len(shared)])
        own_NFD = self._own.vectors(batch.own, found[len(shared) :])
        both_NFD = torch.cat([shared_RFD.index_select(0, request_N), own_NFD], dim=1)
        blocks = [both_NFD.index_select(1, self._order)]
        if self._numbers is not None:
            shared_NM = dense_RM.index_select(0, request_N)
            both_NM = torch.cat([shared_NM, dense_NM], dim=1)
            blocks.append(self._numbers(both_NM.index_select(1, self._places)))
        return _side_by_side(blocks)


def _averages(history: HistoryEmbedding) -> bool:
    return history.pooling is not None and history.pooling.averages


def _mean_of_all(
    events_EKD: Float[Tensor, "events fields dim"],
) -> Float[Tensor, "1 fields dim"]:
    """Average the events of the one request, as ``MeanPooling`` does.

    Most requests come alone, and NumPy takes a fraction of the time of segments.
    """
    sum_1KD = events_EKD.numpy().sum(axis=0, keepdims=True)
    return torch.from_numpy(sum_1KD / max(len(events_EKD), 1))


def _floats(dense: np.ndarray) -> Tensor:
    # A mapped array may be read-only, which torch warns of.
    return torch.from_numpy(dense if dense.flags.writeable else dense.copy())


def _side_by_side(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
