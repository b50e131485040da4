"""Ratios against one server, measured in one run on one machine: ``python -m bench``."""
