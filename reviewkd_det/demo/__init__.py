"""The demo: scenes of handwritten digits, and the runs that are compared on them."""
