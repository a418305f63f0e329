"""Offline shells on Ray: feature tables, distributed training, batch scoring."""
