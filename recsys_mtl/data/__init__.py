"""Encoded tables -> batches; and the raw rows that the simulator makes.

Takes feature tables or source specs; gives ``Batch`` objects or raw Arrow rows.
Must not know networks, optimizers or Ray.
"""
