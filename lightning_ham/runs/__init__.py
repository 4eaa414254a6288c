"""A run: from the recipe to the published model. Its folder and who owns it, its checkpoints, how it ends."""
