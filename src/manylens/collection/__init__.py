"""What there is to sort: files found, told apart by content, decoded."""
