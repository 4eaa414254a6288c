"""What ``python -m lightning_ham.reproduce`` does: the trainings that there are, their runs, the tables made of them.

For maintainers, in a checkout. :mod:`.jobs` says what there is to train, :mod:`.trainings` runs it, :mod:`.session`
does what is left of it, :mod:`.records` has what was measured, in ``results/TASK-MODEL.json``, and :mod:`.report` makes
RESULTS.md and the README's table of it. :mod:`.cards` has the bundled models and their cards.
"""
