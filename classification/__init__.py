"""Classifiers trained with ReviewKD and other methods, on one or several devices."""
