"""Examples to token ids with a segment id each; prompts are encoded here for training and generation alike."""
