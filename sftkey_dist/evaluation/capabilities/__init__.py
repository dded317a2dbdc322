"""What a model can do before and after the training, in tasks of EleutherAI's lm-evaluation-harness."""
