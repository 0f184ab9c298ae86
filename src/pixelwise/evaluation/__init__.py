"""From a bundle and a split to scores, pictures and a report."""
