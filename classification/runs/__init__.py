"""Training and evaluating a classifier."""
