"""A request in, scores out.

Takes a bundle and raw rows or a request; gives predictions a task and one score.
Must not know HTTP, a clock, or where a bundle was trained.
"""
