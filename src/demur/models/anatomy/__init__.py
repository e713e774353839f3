"""What a model is made of: layers and modules, in memory and on disk."""
