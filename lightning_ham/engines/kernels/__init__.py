"""Compiled loops for the CPU (Numba), on arrays: the only package that imports Numba, and only when it is used."""
