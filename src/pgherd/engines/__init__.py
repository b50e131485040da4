"""Who carries a plan out and answers for a topology. Nothing outside of here knows which engine it talks to."""
