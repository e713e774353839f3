"""`demur distill`: refusals taught by training, with what they cost shown beside them."""
