"""The distillation methods, one file each; the imports here are their registration."""
