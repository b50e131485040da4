"""PostgreSQL's partition routing, computed by the client, so that a row is written at its home and nowhere else."""
