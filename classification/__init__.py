"""Classifiers trained alone or by distillation, on one or several devices."""
