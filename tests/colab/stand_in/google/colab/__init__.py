"""Stands in for the module by which a program knows that it runs in Colab; it can do nothing, on purpose."""
