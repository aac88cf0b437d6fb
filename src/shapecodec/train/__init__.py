"""One training loop for all codecs, and what makes it safe to interrupt."""
