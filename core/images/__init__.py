"""Piles of images: how they are read, their views, what is seen of them without a network."""
