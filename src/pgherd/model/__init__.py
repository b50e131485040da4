"""What a herd is: labels, groups, tablespaces, tables, shards, topology. Pure data and its invariants; no I/O."""
