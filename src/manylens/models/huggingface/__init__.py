"""Checkpoints on this computer, through transformers."""
