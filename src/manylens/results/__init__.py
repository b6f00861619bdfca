"""What a run leaves for people and programs: files, report, links, scores."""
