"""A server, seen from outside: metrics, logs, spans, and what became of predictions.

Takes what happens to requests; gives counts, lines and spans. Must not change an
answer, and must not tell who asked: no id of a user or an item is in a label or a line.
"""
