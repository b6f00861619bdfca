"""nano, the embedded model: its code, and its weights beside it."""
