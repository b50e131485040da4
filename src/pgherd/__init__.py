"""pgherd: one Postgres out of many, for gen-AI applications."""
