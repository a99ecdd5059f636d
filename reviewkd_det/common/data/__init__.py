"""Data before a run: class lists compared by name, folders searched, image files checked."""
