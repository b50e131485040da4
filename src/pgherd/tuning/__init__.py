"""Recall instead of knobs: how much effort each shard's index needs, measured, kept in the herd, used by searches."""
