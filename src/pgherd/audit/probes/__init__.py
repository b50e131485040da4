"""What the audit looks for. A probe is a function of the world as it was found; it asks nobody anything."""

from __future__ import annotations
