"""Config files and KEY VALUE pairs, and the config nodes of the methods."""
