"""Training and evaluating: the trainer, its hooks, its start and its end."""
