"""Model and topology in, plan out: pure functions. Same input, same plan; no I/O, no clock, no chance."""
