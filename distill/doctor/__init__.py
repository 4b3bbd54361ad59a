"""What works on this machine: each part is tried by using it."""
