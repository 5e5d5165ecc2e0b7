"""The commands that need no PyTorch, and what all commands share."""
