"""One small file a system. `structmae recipes` lists them; `structmae.registry` knows them by name."""
