"""What the engine is made of, and what needs no deepspeed."""
