"""A task, a controller, an estimator and a JOIN for lightning_ham."""
