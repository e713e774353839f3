"""The verb `demur trace`: where in a model refusal is decided, and which modules carry it over."""
