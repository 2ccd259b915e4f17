"""Checkpoints that others have published: found by name, read safely, recognised by their keys."""
