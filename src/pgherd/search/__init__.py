"""Nearest neighbours over all servers at once: one statement a group, in parallel, merged by distance."""
