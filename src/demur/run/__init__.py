"""The run folder is the truth: configuration, journal of every answer, and what came out."""
