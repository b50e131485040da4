"""What engines made of plain PostgreSQL servers share: pools, two-phase commit, the stored topology, the executor."""
