"""Generate from a model folder, check answers and format, score. Never imports training."""
