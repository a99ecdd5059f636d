"""Opening networks: their nodes, and the stages among them."""
