"""One file a kind of feature: values of one raw column -> ids or numbers.

Takes canonical Arrow arrays; gives ``int32`` ids or ``float32`` numbers, with the state
that was fitted on training rows. Must not know tables, keys or recipes as a whole.
"""
