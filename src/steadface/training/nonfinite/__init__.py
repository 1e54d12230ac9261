"""Losses and gradients that are not finite: where they come from (`replay`, by a `watch` over layers), in words
(`diagnosis`), on disk (`dump`), and a step that leaves no trace of them (`undoing`).
"""
