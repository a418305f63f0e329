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
        sequences: Histories that the bottom pools: events once a request, queries of
            each candidate.
        contexts: For each candidate.
    """

    shared_RFD: Float[Tensor, "requests shared_fields dim"]
    own_NFD: Float[Tensor, "rows own_fields dim"]
    shared_RM: Float[Tensor, "requests shared_dense"]
    own_NM: Float[Tensor, "rows own_dense"]
    request_N: Int[Tensor, " rows"]
    sequences: tuple[EventSequence, ...]
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
        histories = list(embedding.histories.children())
        self._histories = [h for h in histories if isinstance(h, HistoryEmbedding)]
        lists = frozenset(field.name for field in split.schema.ids if field.multi)
        plain = (*embedding.pooled_columns, *embedding.candidates)
        shared = frozenset(split.shared)
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
        self._dense = places
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
        shared_RFD = self._shared.look_up(batch.shared, self._rows[0])
        own_NFD = self._own.look_up(batch.own, self._rows[0])
        dense_RM, dense_NM = _floats(batch.shared.dense_NM), _floats(batch.own.dense_NM)
        contexts = tuple(
            context(batch, rows, dense_RM, dense_NM, request_N)
            for context, rows in zip(self._contexts, self._rows[1:], strict=True)
        )
        shared_blocks, own_blocks = [shared_RFD], [own_NFD]
        sequences = []
        for history in self._histories:
            events = self._events(history, batch, shared_RFD, own_NFD, request_N)
            if history.pooling is None:
                sequences.append(events)
            elif history.pooling.reads_candidate:
                pooled = history.pooling.pool_requests(*events, request_N)
                own_blocks.append(pooled)
            else:
                shared_blocks.append(history(events))
        numbers = self._embedding.numbers
        if numbers is not None:
            for blocks, dense, places in zip(
                (shared_blocks, own_blocks),
                (dense_RM, dense_NM),
                self._dense,
                strict=True,
            ):
                blocks.append(dense[:, :, None] * numbers.weight_MD[places])
            dense_RM, dense_NM = dense_RM[:, :0], dense_NM[:, :0]
        return RequestEmbedded(
            _side_by_side(shared_blocks),
            _side_by_side(own_blocks),
            dense_RM,
            dense_NM,
            request_N,
            tuple(sequences),
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
        for events_EKD, length_R, query_NQD in embedded.sequences:
            place_X, length_N = repeat_events(length_R, request_N)
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
        for history in self._histories:
            if history.pooling is not None:
                side = own if history.pooling.reads_candidate else shared
                side += range(end, end + len(history.columns))
                end += len(history.columns)
        if self._embedding.numbers is not None:
            shared += [end + place for place in dense[0]]
            own += [end + place for place in dense[1]]
        return shared, own

    def _events(
        self,
        history: HistoryEmbedding,
        batch: RequestBatch,
        shared_RFD: Tensor,
        own_NFD: Tensor,
        request_N: Tensor,
    ) -> EventSequence:
        """Look events up; queries are the candidates' own vectors, found already."""
        events_EKD = self._stack.events(batch.shared, history.columns, self._rows[0])
        length_R = lengths_of(batch.shared, history.columns[0])
        if history.pooling is not None and not history.pooling.reads_candidate:
            nothing = events_EKD.new_empty(len(length_R), 0, self._stack.dim)
            return EventSequence(events_EKD, length_R, nothing)
        matched = []
        for column in history.matched:
            if column in self._own.columns:
                matched.append(own_NFD[:, self._own.columns.index(column)])
            else:
                vector_RD = shared_RFD[:, self._shared.columns.index(column)]
                matched.append(vector_RD.index_select(0, request_N))
        query_NQD = (
            torch.stack(matched, dim=1)
            if matched
            else events_EKD.new_empty(len(request_N), 0, self._stack.dim)
        )
        return EventSequence(events_EKD, length_R, query_NQD)


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
        shared_RFD = self._shared.look_up(batch.shared, rows)
        own_NFD = self._own.look_up(batch.own, rows)
        both_NFD = torch.cat([shared_RFD.index_select(0, request_N), own_NFD], dim=1)
        blocks = [both_NFD.index_select(1, self._order)]
        if self._numbers is not None:
            shared_NM = dense_RM.index_select(0, request_N)
            both_NM = torch.cat([shared_NM, dense_NM], dim=1)
            blocks.append(self._numbers(both_NM.index_select(1, self._places)))
        return _side_by_side(blocks)


def _floats(dense: np.ndarray) -> Tensor:
    # A mapped array may be read-only, which torch warns of.
    return torch.from_numpy(dense if dense.flags.writeable else dense.copy())


def _side_by_side(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
