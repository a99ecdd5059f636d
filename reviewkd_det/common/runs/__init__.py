"""A run's folder: files that are whole, random states, interruption, resuming."""
