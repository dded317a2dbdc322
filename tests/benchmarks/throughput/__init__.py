"""Tokens a second of both stages: ours, TRL's `SFTTrainer`, and a bare loop that nothing slows down."""
