"""The work of ``python -m lightning_ham.reproduce``: list the trainings, run them, and make tables of the results.

For maintainers, in a checkout. :mod:`.jobs` lists the trainings, :mod:`.trainings` runs them, :mod:`.session` does the
remaining ones, :mod:`.records` holds the results in ``results/TASK-MODEL.json``, and :mod:`.report` writes RESULTS.md
and the README's table. :mod:`.cards` makes the bundled models and their cards.
"""
