"""Recipes: finding, reading and checking them, and building a training from them."""
