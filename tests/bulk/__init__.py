"""Thousands of random and mutated inputs; `-m slow` runs the full counts."""
