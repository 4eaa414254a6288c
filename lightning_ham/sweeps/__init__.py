"""The work of ``python -m lightning_ham.sweep``: many trainings of a recipe with other values, and the best of them.

:mod:`.objective` says how a training is judged, :mod:`.plan` what a sweep consists of, :mod:`.study` keeps its trials
in Optuna's storage, :mod:`.trials` runs one of them, :mod:`.session` runs all that remain, and :mod:`.report` writes
tables, pictures and the best recipe.
"""
