"""The demonstration, `hiss demo`: start reading at `run`."""
