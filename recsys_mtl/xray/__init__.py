"""What a trained network's parts do.

Takes a network and rows; gives figures, and sentences about them. Must not know where
either came from. ``gradient`` also serves the training loop.
"""
