"""What is logged of runs, stages and evaluations, and when."""
