"""From settings and a folder to a bundle."""
