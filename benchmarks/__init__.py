"""What the project measures of itself; not installed with it."""
