"""Grafting: the parts of an aligned donor that carry refusal are found and put into a recipient."""
