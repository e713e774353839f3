"""`demur measure`: one or several models on one protocol, on the same prompts."""
