"""What a stage measures of itself: times, collectives, traces, and where a rank hangs."""
