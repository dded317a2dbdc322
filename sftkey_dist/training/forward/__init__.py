"""What is computed of a packed row: batches, attention, logits, objectives and the loss."""
