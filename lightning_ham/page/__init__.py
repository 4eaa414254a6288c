"""The page that plays the algorithm: a static site, its models, and a local server for it."""
