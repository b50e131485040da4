"""Real PostgreSQL servers on this machine: where the programs come from, who runs them, start, stop, kill."""
