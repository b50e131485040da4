"""The audit: every place that holds or could receive a pinned row, found by reading the servers."""
