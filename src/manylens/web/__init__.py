"""The page of a run: a server on this computer that shows a run folder and lets a person correct it."""
