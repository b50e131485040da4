"""Text to vectors: a small model in this process, or any OpenAI-compatible endpoint."""
