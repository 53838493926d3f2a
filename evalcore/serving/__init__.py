"""Inference servers: starting them, and a small one of our own."""
