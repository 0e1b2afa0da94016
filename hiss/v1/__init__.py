"""The wire schema as Python code, generated from `proto/hiss/v1`; only `hiss.transport` imports it."""
