"""How refusals are worded: sentences in one spelling, the parts of a refusal, clusters of them."""
