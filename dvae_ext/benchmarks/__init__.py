"""Benchmarks of every op against what a user would write instead: ``dvae-ext bench``.

A module for each op holds its cases: inputs, baselines, the check that comes before any timing, the work that no
implementation can avoid, and the sizes. ``bench/`` in the repository runs the same cases under pytest-benchmark and
collects them, with those of other packages, into one file per machine.
"""
