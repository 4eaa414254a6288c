"""The files that a saved model is, here and on the Hub."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
"""What every model consists of."""
PICTURES = ("learning_curve.png", "attention.png")
"""What is beside it where it was made, for the card to show."""
