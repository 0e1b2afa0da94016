"""Recipes of the demo."""
