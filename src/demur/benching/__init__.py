"""`demur bench`: every method and every control on one protocol, in one table."""
