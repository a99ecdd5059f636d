"""Writing a trained student for use elsewhere."""
