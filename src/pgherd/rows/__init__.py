"""Rows on their way home: batches, where each row goes, and how it is written there."""
