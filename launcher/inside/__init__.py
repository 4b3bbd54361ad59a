"""What runs inside a job; the only part of the launcher that knows the trainer."""
