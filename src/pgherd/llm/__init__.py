"""What a language model may do with a herd: read what is at home in one region, within limits, and leave a trace."""
