"""Tasks with labels: for each, where its training batches come from, its head, its score and its predictions."""
