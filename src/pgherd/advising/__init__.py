"""Advice on a database that exists: measured without changing anything in it."""
