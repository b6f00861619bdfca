"""A run on disk: everything that outlives a process."""
