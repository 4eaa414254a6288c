"""A run: its folder and who owns it, its checkpoints, how it ends, and what is said of it then."""
