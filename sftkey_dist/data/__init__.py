"""Raw rows to examples, examples to token ids with a segment id each, and the store they are read from."""
