"""From batches to logits, and the file that keeps a trained network."""
