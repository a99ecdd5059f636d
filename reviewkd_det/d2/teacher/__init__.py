"""The teacher: where it comes from, which of its parts are built, and how it is frozen."""
