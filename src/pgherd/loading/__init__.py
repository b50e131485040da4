"""Files into tables: read, checked, embedded and copied home; every row once, however often the load is killed."""

from .load import Loaded, Progress, load

__all__ = ["Loaded", "Progress", "load"]
