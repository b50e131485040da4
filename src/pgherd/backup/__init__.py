"""Backups of a whole herd: base backups, archived WAL, one moment on all groups, and the way back."""
