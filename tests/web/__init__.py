"""The page in a browser: a real run, a real server, Debian's Chromium."""
