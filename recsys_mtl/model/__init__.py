"""The network, read in the order data flows.

embeddings -> bottoms -> gating -> chains -> towers -> heads

Takes a ``Batch``; gives logits, losses and predictions a task. Must not know files,
recipes (only ``build`` does) or optimizers.

Axis letters, the same in every file:
``B`` batch rows, ``S`` sharing (1 or T), ``T`` tasks, ``E`` experts, ``F`` fields,
``D`` width in, ``G`` width between, ``H`` width out, ``C`` logits of one head,
``M`` dense numbers, ``K`` fields of an event, ``L`` history length, ``J`` time bins,
``N`` flattened jagged values, ``V`` vocabulary.
"""
