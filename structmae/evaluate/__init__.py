"""What an encoder is worth: one file a downstream task. Each scores the same arms in the same way."""
