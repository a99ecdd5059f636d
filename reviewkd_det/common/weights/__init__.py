"""Reading weights as plain data."""
