"""Tests of the classification programs."""
