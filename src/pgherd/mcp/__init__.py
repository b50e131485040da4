"""The Model Context Protocol: carries :mod:`pgherd.llm` over stdio or HTTP; no logic of its own."""
