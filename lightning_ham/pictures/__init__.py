"""Pictures: what a model attends to, how it learned, and both on its card."""
