"""Page indexes side by side."""
