"""Runs, from the recipe to the published model: folder, checkpoints, tracking, endings."""
