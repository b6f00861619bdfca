"""Multi-modal language models behind one protocol (`base`), by name (`registry`)."""
