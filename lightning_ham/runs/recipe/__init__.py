"""Recipes: how one is found, read and checked, and what is made of it for a training."""
